"""A corpus run, or what a study found, as one file to take away; written a part at a time."""

import csv
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.spreadsheet import spreadsheet_safe
from lmoe_studio.errors import StorageError
from lmoe_studio.ui.report import write_report
from lmoe_studio.ui.studies import KeptStudy

RunFormat = Literal["csv", "parquet", "jsonl", "html"]
FORMATS: tuple[RunFormat, ...] = get_args(RunFormat)
_LIKE = "routing-*"


def write_run(kept: KeptStudy, kind: RunFormat) -> Path:
    """Write every row of a run (the report, for "html") into its folder.

    Raises:
        StorageError: it cannot be written.
    """
    for old in kept.folder.glob(_LIKE):
        old.unlink(missing_ok=True)
    path = kept.folder / f"{_LIKE[:-1]}{datetime.now():%Y%m%d-%H%M%S}.{kind}"
    if kind == "html":
        return write_report(kept.study, path)
    parts = sorted((kept.runs / f"run={kept.run}").glob("part-*.parquet"))
    try:
        if kind == "parquet":
            _write_parquet(parts, kept.run, path)
        else:
            for index, part in enumerate(parts):
                frame = pq.ParquetFile(part).read().to_pandas()
                frame.insert(0, "run", kept.run)
                with path.open("a", encoding="utf-8", newline="") as file:
                    if kind == "jsonl":
                        frame.to_json(file, orient="records", lines=True, force_ascii=False)
                    else:
                        spreadsheet_safe(frame).to_csv(
                            file, index=False, header=index == 0, quoting=csv.QUOTE_NONNUMERIC
                        )
    except OSError as error:
        raise StorageError(f"{path.name} cannot be written: {error.strerror or error}.") from None
    return path


def _write_parquet(parts: list[Path], run: str, path: Path) -> None:
    writer = None
    try:
        for part in parts:
            table = pq.ParquetFile(part).read()
            name = pa.array([run] * len(table)).dictionary_encode()
            table = table.add_column(0, "run", name).replace_schema_metadata(None)
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer:
            writer.close()
