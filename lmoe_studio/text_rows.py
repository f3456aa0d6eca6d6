"""Rows of JSONL, CSV, Parquet and plain text files, one at a time and within bounds.

A row is a dict of its columns; plain text has one, `text`. Whoever reads says what must be in it.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmoe_studio.errors import DataError
from lmoe_studio.plain_data import PlainDataError, read_json

MAX_TEXT = 1_000_000  # characters; a longer text, or line, is no text but a broken file
_BATCH = 16  # rows of a Parquet file, unpacked at once

Rows = Iterator[tuple[str, dict[str, Any]]]
"""Where a row stands ("file, line 3"), and its columns."""


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Rows:
    """The rows of a .jsonl, .csv, .parquet or .txt file; blank lines are passed over.

    Args:
        path: the file.
        columns: of a Parquet file, unpack only these, as far as it has them; None takes all.

    Raises:
        DataError: names the file, the line, and what is wrong with it.
    """
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
    if path.suffix.lower() == ".parquet":
        with _readable(path):
            return list(map(str, pq.read_schema(path).names))
    return list(next(read_rows(path), ("", {}))[1])


def sha256(path: Path) -> str:
    """Of the file's bytes. Raises DataError if it cannot be read."""
    with _readable(path), path.open("rb") as file:
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
    for number, line in _lines(path):
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
        for number, line in _lines(path):  # noqa: B007 (read below, where a row ends)
            yield line

    reader = csv.DictReader(lines(), strict=True)
    try:
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
        names = [name for name in schema.names if columns is None or name in columns]
        if not names:  # from the names that there are it is seen what is missing
            yield f"{path}", dict.fromkeys(schema.names)
            return
        # A text that stands once in the file and many times in the column is unpacked once.
        texts = [n for n in names if pa.types.is_string(schema.field(n).type)]
        parquet = pq.ParquetFile(file, read_dictionary=texts)
        number = 0
        for batch in parquet.iter_batches(batch_size=_BATCH, columns=names):
            for cells in zip(*(batch.column(name) for name in names), strict=True):
                number += 1
                values = {n: cell.as_py() for n, cell in zip(names, cells, strict=True)}
                yield f"{path}, row {number}", values


def _read_plain(path: Path, _: Sequence[str] | None) -> Rows:
    for number, line in _lines(path):
        yield f"{path}, line {number}", {"text": line.rstrip("\r\n")}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers; a line is never longer than MAX_TEXT."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_TEXT + 1), ""), start=1):
            if len(line) > MAX_TEXT:
                raise DataError(
                    f"{path}, line {number}: longer than {MAX_TEXT:,} characters; "
                    "give one text a line."
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
