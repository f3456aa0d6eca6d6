"""Exportable: something that a person can save, as rows or as one document."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

RowFormat = Literal["parquet", "csv.gz", "csv", "jsonl"]
Format = RowFormat | Literal["txt", "html"]
Pieces = Sequence[Callable[[], str]]
"""A text in pieces, each made when its turn comes."""
NAMES: dict[Format, str] = {
    "parquet": "Parquet", "csv.gz": "CSV, gzipped", "csv": "CSV", "jsonl": "JSONL", "txt": "Text",
    "html": "Report (HTML)",
}  # fmt: skip
"""What the formats are called, in the order of their buttons."""


@dataclass(frozen=True)
class Exportable:
    """Rows, and perhaps documents made of them."""

    stem: str
    """Begins the file's name."""
    row: str
    """What one row is, in words."""
    count: int
    """How many rows."""
    batches: Callable[[int], Iterator[pa.Table]]
    """The rows from the first on, at most so many at a time. Parquet keeps the schema's metadata."""
    documents: Mapping[Format, Pieces] = field(default_factory=dict)
    """Formats that are one text."""


def in_batches(table: pa.Table, most: int) -> Iterator[pa.Table]:
    """A table that is there, at most so many rows at a time; one without rows comes as it is."""
    for start in range(0, max(1, len(table)), most):
        yield table.slice(start, most)
