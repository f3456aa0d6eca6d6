"""Rows that are taken once and kept as a file, so that whoever goes on later reads the same."""

import json
import re
from collections.abc import Callable, Collection
from hashlib import sha256
from pathlib import Path
from typing import Any

from lmoe_studio.errors import DataError, StorageError
from lmoe_studio.sources.dataset import dataset_rows
from lmoe_studio.sources.named import DatasetSource, GivenDataset, source_value
from lmoe_studio.whole import whole_file

MAX_CHARACTERS = 2**30
"""Of what is kept of one dataset."""


def kept_rows(
    source: DatasetSource | GivenDataset,
    folder: Path,
    columns: Collection[str],
    *,
    check: Callable[[dict[str, Any], str], object] = lambda *_: None,
    anew: bool = False,
) -> Path:
    """The JSONL file with the rows of a dataset: what is there already, else taken now.

    Args:
        source: the dataset. What was named is read once; what is given is read each time.
        folder: for the file; made if need be.
        columns: keep only these.
        check: told each row, with all names of columns, and where it stands; may raise DataError.
        anew: take them now whatever is there.

    Raises:
        HubError, DataError: the rows cannot be had, or are not sound.
        StorageError: the file cannot be written.
    """
    file = folder / f"{_name(source, columns)}.jsonl"
    if file.is_file() and isinstance(source, DatasetSource) and not anew:
        return file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as staged, staged.open("w", encoding="utf-8") as out:
            _write(source, columns, check, out.write)
    except OSError as error:
        raise StorageError(
            f"The rows of {source} cannot be kept in {folder}: {error.strerror or error}."
        ) from None
    return file


def _write(
    source: DatasetSource | GivenDataset,
    columns: Collection[str],
    check: Callable[[dict[str, Any], str], object],
    write: Callable[[str], object],
) -> None:
    characters = 0
    for where, row in dataset_rows(source, columns):
        check(row, where)
        kept = {name: value for name, value in row.items() if name in columns}
        line = json.dumps(kept, ensure_ascii=False, default=str).encode("utf-8", "replace").decode()
        characters += len(line)
        if characters > MAX_CHARACTERS:
            raise DataError(
                f"{where}: more than {MAX_CHARACTERS:,} characters; take fewer rows (take)."
            )
        write(f"{line}\n")


def _name(source: DatasetSource | GivenDataset, columns: Collection[str]) -> str:
    """Readable, and another one for another part of another dataset."""
    if isinstance(source, GivenDataset):
        return "given"
    words = [Path(source.dataset).name, source.config or "", source.split or ""]
    part = [source_value(source), sorted(set(columns))]
    digest = sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
    return "-".join([*(re.sub(r"[^\w.]+", "-", word) for word in words if word), digest[:8]])
