"""A corpus run, or what a study found, as one file to take away; written some rows at a time."""

import gzip
import io
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import IO, Literal, get_args

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from analysis.spreadsheet import safe_cell
from lmoe_studio.errors import StorageError
from lmoe_studio.ui.report import write_report
from lmoe_studio.ui.studies import KeptStudy

RunFormat = Literal["parquet", "csv.gz", "csv", "jsonl", "html"]
FORMATS: tuple[RunFormat, ...] = get_args(RunFormat)
_LIKE = "routing-*"
_ROWS = 100_000
_SAMPLE = 20_000  # rows that an estimate writes: the deflated size of fewer is too large


def write_run(
    kept: KeptStudy,
    kind: RunFormat,
    *,
    on_progress: Callable[[float], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Write every row of a run (the report, for "html") into its folder.

    Args:
        kept: the study; the file of an earlier export is removed.
        kind: what to write. CSV is guarded as in `analysis.spreadsheet`; Parquet is exact.
        on_progress: hears the share that is done, 0 to 1.
        should_stop: asked now and then.

    Returns:
        The file; None where it was stopped, and nothing is left.

    Raises:
        StorageError: it cannot be written.
    """
    for old in kept.folder.glob(_LIKE):
        old.unlink(missing_ok=True)
    path = kept.folder / f"{_LIKE[:-1]}{datetime.now():%Y%m%d-%H%M%S}.{kind}"
    if kind == "html":
        return write_report(kept.study, path)
    rows, done = rows_of(kept), 0
    try:
        with path.open("wb") as file, closing(_WRITERS[kind](file)) as writer:
            for batch in _batches(kept, _ROWS):
                if should_stop():
                    break
                writer.write(batch)
                done += len(batch)
                on_progress(done / rows)
    except OSError as error:
        raise StorageError(f"{path.name} cannot be written: {error.strerror or error}.") from None
    if done < rows:
        path.unlink()
        return None
    return path


def rows_of(kept: KeptStudy) -> int:
    """How many rows a run has: a token at a site, by its experts."""
    return sum(pq.read_metadata(part).num_rows for part in _parts(kept))


def sizes(kept: KeptStudy) -> dict[RunFormat, int]:
    """About how many bytes each format takes, from its first rows; the report is left out."""
    rows = rows_of(kept)
    sample = next(_batches(kept, _SAMPLE))
    found: dict[RunFormat, int] = {}
    for kind, make in _WRITERS.items():
        file = io.BytesIO()
        with closing(make(file)) as writer:
            writer.write(sample)
        found[kind] = round(file.tell() / max(1, len(sample)) * rows)
    # What Parquet says once for a whole file a sample would count many times.
    found["parquet"] = sum(part.stat().st_size for part in _parts(kept))
    return found


def _parts(kept: KeptStudy) -> list[Path]:
    return sorted((kept.runs / f"run={kept.run}").glob("part-*.parquet"))


def _batches(kept: KeptStudy, rows: int) -> Iterator[pa.Table]:
    """The run's rows, with its name in the first column."""
    for part in _parts(kept):
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(batch_size=rows):
                table = pa.Table.from_batches([batch])
                name = pa.array([kept.run] * len(table)).dictionary_encode()
                yield table.add_column(0, "run", name).replace_schema_metadata(None)


class _Parquet:
    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._writer = file, None

    def write(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema, compression="zstd")
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _Csv:
    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._writer = file, None

    def write(self, table: pa.Table) -> None:
        table = pa.table({name: _guarded(table[name]) for name in table.column_names})
        if self._writer is None:
            self._writer = pc.CSVWriter(self._file, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _GzipCsv(_Csv):
    def __init__(self, file: IO[bytes]) -> None:
        self._packed = gzip.GzipFile(fileobj=file, mode="wb", compresslevel=4)
        super().__init__(self._packed)  # pyright: ignore[reportArgumentType]  (is one but in name)

    def close(self) -> None:
        super().close()
        self._packed.close()


class _JsonLines:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, table: pa.Table) -> None:
        lines = table.to_pandas().to_json(orient="records", lines=True, force_ascii=False)
        self._file.write(lines.encode("utf-8", "replace"))

    def close(self) -> None: ...


_WRITERS: dict[RunFormat, type[_Parquet | _Csv | _JsonLines]] = {
    "parquet": _Parquet,
    "csv.gz": _GzipCsv,
    "csv": _Csv,
    "jsonl": _JsonLines,
}


def _guarded(column: "pa.ChunkedArray") -> "pa.Array | pa.ChunkedArray":
    """A column in which no text can run as a formula; each text is looked at once."""
    is_named = pa.types.is_dictionary(column.type)
    if not (is_named or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    whole = column.combine_chunks()
    whole = whole if is_named else whole.dictionary_encode()
    texts = pa.array([safe_cell(text) for text in whole.dictionary.to_pylist()], pa.string())
    return texts.take(whole.indices)
