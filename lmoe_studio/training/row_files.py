"""RowFiles: the rows of a skill's files, read anew each time and never kept."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lmoe_studio.errors import DataError
from lmoe_studio.training.examples import TextRow, text_rows

MAX_CHARACTERS = 2**30
"""Of a file's texts, or twenty times its size if that is more: a bomb unpacks to more than that."""


@dataclass
class RowFiles:
    """The rows of some files that hold something to learn, by number; read anew each time."""

    paths: tuple[Path, ...]
    dropped: Counter[str] = field(default_factory=Counter)
    count: int = 0
    characters: int = 0

    def survey(self) -> None:
        """Read all rows once: check, count, and note what is left out."""
        for path in self.paths:
            limit = max(MAX_CHARACTERS, 20 * path.stat().st_size if path.is_file() else 0)
            read = 0
            for row in text_rows(path):
                read += sum(len(text) for _, text in row.parts)
                if read > limit:
                    raise DataError(f"{row.where}: more than {limit:,} characters; split the file.")
                if row.is_blank:
                    self.dropped["blank"] += 1
                    continue
                self.dropped["broken characters replaced"] += row.repaired
                self.count += 1
            self.characters += read

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
