"""RowFiles: the rows of a skill's files and saved datasets, read anew each time and never kept."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lmoe_studio.errors import DataError
from lmoe_studio.sources.named import MOST_ROWS
from lmoe_studio.sources.rows import COLUMNS, TextRow
from lmoe_studio.text_rows import file_size
from lmoe_studio.training.examples import text_rows

MAX_CHARACTERS = 2**30
"""Of a file's texts, or twenty times its size if that is more: a bomb unpacks to more than that."""


@dataclass
class RowFiles:
    """The rows of some files that hold something to learn, by number; read anew each time."""

    paths: tuple[Path, ...]
    names: Mapping[Path, str] = field(default_factory=dict)
    """What some of them are called by whoever asked for them."""
    dropped: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)
    """What was found in each, a line."""
    count: int = 0
    characters: int = 0

    def survey(self) -> None:
        """Read all rows once: check, count, and note what is left out."""
        for path in self.paths:
            limit = max(MAX_CHARACTERS, 20 * file_size(path))
            read, rows, columns = 0, 0, set[str]()
            for row in text_rows(path):
                rows += 1
                columns |= set(row.columns)
                read += sum(len(text) for _, text in row.parts)
                if read > limit:
                    raise DataError(f"{row.where}: more than {limit:,} characters; split the file.")
                if row.is_blank:
                    self.dropped["blank"] += 1
                    continue
                self.dropped["broken characters replaced"] += row.repaired
                self.count += 1
            self.characters += read
            line = _line(rows, self.names.get(path, str(path)), columns)
            is_cut = path in self.names and rows == MOST_ROWS
            self.found.append(f"{line} (the first ones; `take` takes more)" if is_cut else line)

    def pick(self, numbers: Iterable[int]) -> Iterator[TextRow]:
        """Some rows, in the order of `numbers`."""
        order = list(numbers)
        wanted, found = set(order), dict[int, TextRow]()
        for number, row in enumerate(self._rows()):
            if number in wanted:
                found[number] = row
                if len(found) == len(wanted):
                    break
        return (found.pop(number) for number in order)

    def hashes(self, numbers: Iterable[int]) -> frozenset[int]:
        """Of some rows' texts."""
        wanted = set(numbers)
        rows = enumerate(self._rows())
        return frozenset(hash(row.parts) for number, row in rows if number in wanted)

    def _rows(self) -> Iterator[TextRow]:
        return (row for path in self.paths for row in text_rows(path) if not row.is_blank)


def _line(rows: int, name: str, columns: set[str]) -> str:
    used = [column for column in COLUMNS if column in columns]
    say = f": column{'s' if len(used) > 1 else ''} {', '.join(used)}" if used else ""
    return f"{rows:,} row{'' if rows == 1 else 's'} of {name}{say}"
