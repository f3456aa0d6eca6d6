"""Rows of JSONL, CSV, Parquet and plain text files and of saved datasets, one at a time, within bounds.

A row is a dict of its columns; plain text has one, `text`. Whoever reads says what must be in it.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmoe_studio.errors import DataError
from lmoe_studio.plain_data import PlainDataError, read_json
from lmoe_studio.sources.dataset import saved_columns, saved_rows
from lmoe_studio.sources.rows import MAX_TEXT
from lmoe_studio.whole import is_folder

_MAX_LINE = 8 * MAX_TEXT  # of JSON and CSV, which escape characters and hold other columns
_BATCH = 16  # rows of a Parquet file, unpacked at once
_SAMPLED, _SAMPLE = 5, 40  # rows, and characters of a cell, from which a column is recognised

Rows = Iterator[tuple[str, dict[str, Any]]]
"""Where a row stands ("file, line 3"), and its columns."""


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Rows:
    """The rows of a .jsonl, .csv, .parquet or .txt file, or of a folder of `save_to_disk`.

    Blank lines are passed over. No column may stand in a file twice: one of the two would be lost.

    Args:
        path: the file or folder.
        columns: of a Parquet file or a folder, unpack only these, as far as it has them; of the
            others the names are given. None takes all.

    Raises:
        DataError: names the file, the line, and what is wrong with it.
    """
    if is_folder(path):
        yield from saved_rows(path, columns)
        return
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise DataError(
            f"{path}: expected a .jsonl, .csv, .parquet or .txt file, not '{path.suffix}'."
        )
    with _readable(path):
        yield from read(path, columns)


def column_names(path: Path) -> list[str]:
    """Names of the columns of a file, from its first row; empty where it has none.

    Raises:
        DataError: the file cannot be read.
    """
    if is_folder(path):
        return saved_columns(path)
    if path.suffix.lower() == ".parquet":
        with _readable(path):
            return list(map(str, pq.read_schema(path).names))
    return list(next(read_rows(path), ("", {}))[1])


def column_samples(path: Path) -> dict[str, str]:
    """The columns of a file, each with the beginning of its first cell that is not blank.

    Raises:
        DataError: the file cannot be read.
    """
    samples = dict.fromkeys(column_names(path), "")
    for _, row in islice(read_rows(path), _SAMPLED):
        for name, value in row.items():
            if not samples.get(name) and value is not None:
                cell = " ".join(str(value)[: 10 * _SAMPLE].split())
                samples[name] = cell if len(cell) <= _SAMPLE else f"{cell[: _SAMPLE - 1]}…"
    return samples


def sha256(path: Path) -> str:
    """Of the file's bytes, or of those of a folder's files. Raises DataError if it cannot be read."""
    with _readable(path):
        if not is_folder(path):
            return _file_sha256(path)
        whole = hashlib.sha256()
        for file in files_of(path):
            whole.update(f"{file.relative_to(path).as_posix()}\n{_file_sha256(file)}\n".encode())
        return whole.hexdigest()


def file_size(path: Path) -> int:
    """Bytes of a file; 0 of a folder. Raises DataError if it cannot be read."""
    with _readable(path):
        return 0 if is_folder(path) else path.stat().st_size


def files_of(path: Path) -> list[Path]:
    """A file itself, or the files of a saved dataset in the order of their names."""
    if not is_folder(path):
        return [path]
    return sorted(one for one in path.rglob("*") if one.is_file() and not one.is_symlink())


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from None
    except pa.ArrowException:
        raise DataError(f"{path} is no Parquet file, or is damaged.") from None


def _read_jsonl(path: Path, _: Sequence[str] | None) -> Rows:
    for number, line in _lines(path, _MAX_LINE):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = read_json(line)
        except PlainDataError as error:
            raise DataError(f"{where}: no JSON ({error.reason}).") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object with columns, got {type(row).__name__}.")
        yield where, row


def _read_csv(path: Path, _: Sequence[str] | None) -> Rows:
    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        for number, line in _lines(path, _MAX_LINE):  # noqa: B007 (read below, where a row ends)
            yield line

    # The module's own limit of 131,072 is below that of a text; it is one for the whole process.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_TEXT))
    reader = csv.DictReader(lines(), strict=True)
    try:
        # A spreadsheet may leave any number of columns without a name.
        _require_unique(
            [name for name in reader.fieldnames or () if name], f"{path}, line {number}"
        )
        for row in reader:
            where = f"{path}, line {number}"
            if None in row:
                raise DataError(f"{where}: more cells than the header has columns.")
            yield where, row
    except csv.Error as error:
        raise DataError(f"{path}, line {number}: no sound CSV ({error}).") from None


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Rows:
    with path.open("rb") as file:
        schema = pq.read_schema(file)
        _require_unique(schema.names, f"{path}")
        names = [name for name in schema.names if columns is None or name in columns]
        if not names:  # from the names that there are it is seen what is missing
            yield f"{path}", dict.fromkeys(schema.names)
            return
        others = dict.fromkeys(schema.names)
        # A text that stands once in the file and many times in the column is unpacked once.
        texts = [n for n in names if pa.types.is_string(schema.field(n).type)]
        parquet = pq.ParquetFile(file, read_dictionary=texts)
        number = 0
        for batch in parquet.iter_batches(batch_size=_BATCH, columns=names):
            for cells in zip(*(batch.column(name) for name in names), strict=True):
                number += 1
                where = f"{path}, row {number}"
                values = {n: _value(cell, n, where) for n, cell in zip(names, cells, strict=True)}
                yield where, others | values


def _value(cell: "pa.Scalar[Any]", column: str, where: str) -> Any:
    try:
        return cell.as_py()
    except (ValueError, OverflowError) as error:  # no UTF-8, or a day beyond Python's calendar
        raise DataError(f"{where}: the cell of '{column}' cannot be read ({error}).") from None


def _require_unique(names: Sequence[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{where}: there are two columns '{name}'; rename or remove one.")


def _read_plain(path: Path, _: Sequence[str] | None) -> Rows:
    for number, line in _lines(path, MAX_TEXT + len("\r\n")):
        yield f"{path}, line {number}", {"text": line.rstrip("\r\n")}


def _lines(path: Path, most: int) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers; a line never has more characters than `most`."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, line in enumerate(iter(lambda: file.readline(most + 1), ""), start=1):
            if len(line) > most:
                raise DataError(
                    f"{path}, line {number}: longer than {most:,} characters; give one text a line."
                )
            if "\0" in line:
                raise DataError(f"{path}, line {number}: a binary file, not text.")
            yield number, line


_READERS: dict[str, Callable[[Path, Sequence[str] | None], Rows]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_plain,
}
