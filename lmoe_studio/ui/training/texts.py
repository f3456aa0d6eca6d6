"""The experts that someone asks for, with their texts: pasted, uploaded, or the operator's files.

What a browser says is checked here. A file is taken only from where uploads are kept and from the
folder that the operator allowed; a path that leads elsewhere is as good as none.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from lmoe_studio.errors import DataError
from lmoe_studio.sources.dataset import is_saved_split
from lmoe_studio.sources.named import Source
from lmoe_studio.training.config import EXPERT_NAME
from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.file_names import in_words
from lmoe_studio.ui.pasted import write_pasted

SUFFIXES = (".jsonl", ".csv", ".parquet", ".txt")
FEWEST_EXPERTS, MOST_EXPERTS = 2, 12
MOST_FILES = 500
"""Of the operator's folder, offered to choose from."""
_LONGEST_DESCRIPTION = 300


@dataclass(frozen=True)
class Places:
    """Where files may be taken from."""

    uploads: Path
    operator: Path | None = None
    """The folder that the operator allowed."""

    def files(self) -> list[str]:
        """The data files and saved datasets of the operator's folder, by their names in it."""
        if self.operator is None:
            return []
        root = self.operator.resolve()
        found = (
            str(path.relative_to(root))
            for path in sorted(root.rglob("*"))
            if _holds_texts(path) and self._is_inside(path, root)
        )
        return list(islice(found, MOST_FILES))

    def adapters(self) -> list[str]:
        """The folders of the operator's folder that hold an adapter, by their names in it."""
        if self.operator is None:
            return []
        root = self.operator.resolve()
        found = (path.parent for path in sorted(root.rglob("adapter_config.json")))
        inside = (str(one.relative_to(root)) for one in found if self._is_inside(one, root))
        return list(islice(inside, MOST_FILES))

    def uploaded(self, path: object, who: str, suffixes: Collection[str] = SUFFIXES) -> Path:
        """An uploaded file. Raises DataError where it is gone, or never was one."""
        if isinstance(path, str) and path and self._is_inside(Path(path), self.uploads.resolve()):
            file = Path(path)
            if file.is_file() and file.suffix.lower() in suffixes:
                return file
        raise DataError(f"{who}: the uploaded file is not here any more; upload it again.")

    def in_folder(self, name: object, who: str) -> Path:
        """A file or saved dataset of the operator's folder. Raises DataError for any other."""
        if self.operator is not None and isinstance(name, str) and name:
            root = self.operator.resolve()
            file = root / name
            if self._is_inside(file, root) and _holds_texts(file):
                return file
        shown = str(name)[:120]
        raise DataError(f"{who}: '{clean(shown)}' is no data file in the operator's folder.")

    def name_of(self, path: Source, start: Path) -> str | None:
        """The name in the operator's folder of a file or folder that a config names, if it is there.

        Args:
            path: as the config was read: absolute, or begun at the config's folder.
            start: the config's folder.
        """
        if self.operator is None or not isinstance(path, Path):
            return None
        root = self.operator.resolve()
        inside = root / path.relative_to(start) if path.is_relative_to(start) else path
        if self._is_inside(inside, root) and (inside.is_file() or _holds_texts(inside)):
            return str(inside.resolve().relative_to(root))
        return None

    def folder(self, name: str) -> Path | None:
        """A folder in the operator's folder, by its name there or in full; None for any other."""
        if self.operator is None or not name:
            return None
        root = self.operator.resolve()
        folder = root / name
        return folder.resolve() if self._is_inside(folder, root) and folder.is_dir() else None

    @staticmethod
    def _is_inside(path: Path, root: Path) -> bool:
        try:
            return path.resolve().is_relative_to(root)
        except (OSError, ValueError):  # a loop of links, a NUL
            return False


def _holds_texts(path: Path) -> bool:
    """Whether it is a data file, or a split of a dataset that `save_to_disk` has written."""
    return is_saved_split(path) or (path.suffix.lower() in SUFFIXES and path.is_file())


@dataclass(frozen=True)
class GivenTexts:
    """Experts as someone asked for them, their texts as files."""

    skills: tuple[dict[str, Any], ...]
    """Values for `SkillConfig`, with paths."""
    names: Mapping[Path, str] = field(default_factory=dict)
    """What a person calls each file."""
    is_passing: bool = False
    """Some files were pasted or uploaded, and do not stay."""

    def in_words(self, message: str) -> str:
        """A message with the files called as the person calls them."""
        return in_words(message, self.names)


def read_texts(rows: object, places: Places, folder: Path) -> GivenTexts:
    """The experts that a browser asks for.

    Args:
        rows: what the browser says.
        places: where files may be taken from.
        folder: where pasted texts are written down.

    Raises:
        DataError: an expert has no sound name, or no texts; names which.
    """
    rows = [row if isinstance(row, dict) else {} for row in _list(rows)]
    given = {number: row for number, row in enumerate(rows, start=1) if _is_begun(row)}
    if not given:
        raise DataError("There is no expert yet; give one a name and some texts.")
    if len(given) > MOST_EXPERTS:
        raise DataError(f"{len(given)} experts came, and a page trains at most {MOST_EXPERTS}.")
    names: dict[Path, str] = {}
    skills = [_skill(row, number, places, folder, names) for number, row in given.items()]
    is_passing = any(row.get("kind") != "folder" for row in given.values())
    return GivenTexts(tuple(skills), names, is_passing)


def _is_begun(row: dict[str, Any]) -> bool:
    """Whether somebody has put something into a row."""
    return any(row.get(key) for key in ("name", "text", "file", "places"))


def _skill(
    row: dict[str, Any], number: int, places: Places, folder: Path, names: dict[Path, str]
) -> dict[str, Any]:
    name = _string(row, "name").strip()
    if not name:
        raise DataError(f"Expert {number} has no name; give it one.")
    if not re.match(EXPERT_NAME, name):
        raise DataError(
            f"Expert {number}: '{clean(name[:80])}' is no name; begin with a letter or a digit and "
            "go on with letters, digits, _ . + or -, at most 80."
        )
    who = f"Expert '{name}'"
    train, held_out = _files(row, who, places, folder / str(number), names)
    return {
        "name": name,
        "description": _string(row, "description").strip()[:_LONGEST_DESCRIPTION],
        "train": train,
        "held_out": held_out,
        "tags": [tag for tag in _list(row.get("tags")) if isinstance(tag, str)],
        "source": _string(row, "source"),
    }


def _files(
    row: dict[str, Any], who: str, places: Places, folder: Path, names: dict[Path, str]
) -> tuple[list[Path], list[Path]]:
    """Training and held-out files of one expert; what a person calls them goes into `names`."""
    kind = row.get("kind")
    if kind == "folder":
        train, held_out = (
            {places.in_folder(name, who): name for name in _list(row.get(key))}
            for key in ("places", "held_out")
        )
        if not train:
            raise DataError(f"{who} has no texts; choose a file for it.")
        names.update(train | held_out)
        return list(train), list(held_out)
    if kind == "file":
        sent = row.get("file")
        if not isinstance(sent, dict):
            raise DataError(f"{who} has no texts; upload a file for it, or paste some.")
        file = places.uploaded(sent.get("path"), who)
        names[file] = file.name
        return [file], []
    text = _string(row, "text")
    if not text.strip():
        raise DataError(f"{who} has no texts; paste some, or upload a file.")
    folder.mkdir(parents=True, exist_ok=True)
    file = write_pasted(text, folder)
    names[file] = f"the pasted text of '{row['name'].strip()}'"
    return [file], []


def _string(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
