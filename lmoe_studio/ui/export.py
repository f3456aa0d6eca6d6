"""A trace as a file to take away: CSV for a spreadsheet, Parquet to read back exactly."""

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Literal

from analysis import routing_frame
from analysis.spreadsheet import write_csv
from lmoe_studio.tracing.files import save_trace
from lmoe_studio.tracing.records import RoutingTrace

TraceFormat = Literal["csv", "parquet"]

_KEPT_SECONDS = 600
"""Long enough for a file to be handed over."""


def write_trace(trace: RoutingTrace, kind: TraceFormat, folder: Path) -> Path:
    """Write a trace into a folder, under a name made from its bank and the time."""
    _forget_old(folder)
    bank = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(trace.bank).name).strip("-") or "bank"
    path = folder / f"trace-{bank}-{datetime.now():%Y%m%d-%H%M%S}.{kind}"
    if kind == "parquet":
        return save_trace(trace, path)
    write_csv(routing_frame(trace), path)
    return path


def _forget_old(folder: Path) -> None:
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
            path.unlink(missing_ok=True)
