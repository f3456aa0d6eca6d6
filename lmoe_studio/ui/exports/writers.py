"""Rows written to a file of each format, some at a time."""

import gzip
from typing import IO, Protocol

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from analysis.spreadsheet import safe_cell
from lmoe_studio.ui.exports.exportable import RowFormat


class Writer(Protocol):
    """Takes rows; the file is whole once it is closed."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None: ...
    def write(self, table: pa.Table) -> None: ...
    def close(self) -> None: ...


class _Parquet:
    """Exact."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()


class _Csv:
    """Guarded as in `analysis.spreadsheet`."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._writer = pc.CSVWriter(file, _guarded(schema.empty_table()).schema)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(_guarded(table))

    def close(self) -> None:
        self._writer.close()


class _GzipCsv(_Csv):
    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._packed = gzip.GzipFile(fileobj=file, mode="wb", compresslevel=4)
        super().__init__(self._packed, schema)  # pyright: ignore[reportArgumentType]  (is one but in name)

    def close(self) -> None:
        super().close()
        self._packed.close()


class _JsonLines:
    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:  # noqa: ARG002  (no line has it)
        self._file = file

    def write(self, table: pa.Table) -> None:
        lines = table.to_pandas().to_json(orient="records", lines=True, force_ascii=False)
        self._file.write(lines.encode("utf-8", "replace"))

    def close(self) -> None: ...


WRITERS: dict[RowFormat, type[Writer]] = {
    "parquet": _Parquet,
    "csv.gz": _GzipCsv,
    "csv": _Csv,
    "jsonl": _JsonLines,
}


def _guarded(table: pa.Table) -> pa.Table:
    return pa.table({name: _guarded_column(table[name]) for name in table.column_names})


def _guarded_column(column: "pa.ChunkedArray") -> "pa.Array | pa.ChunkedArray":
    """A column in which no text can run as a formula; each text is looked at once."""
    is_named = pa.types.is_dictionary(column.type)
    if not (is_named or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    whole = column.combine_chunks()
    whole = whole if is_named else whole.dictionary_encode()
    texts = pa.array([safe_cell(text) for text in whole.dictionary.to_pylist()], pa.string())
    return texts.take(whole.indices)
