"""A trace as a file to take away: CSV for a spreadsheet, Parquet to read back exactly."""

import re
from datetime import datetime
from pathlib import Path
from typing import Literal

import pandas as pd

from analysis import routing_frame
from lmoe_studio.tracing.files import save_trace
from lmoe_studio.tracing.records import RoutingTrace
from lmoe_studio.ui.clean_text import clean

TraceFormat = Literal["csv", "parquet"]

_FORMULA = re.compile(r"[\s\u200b\ufeff]*[=+\-@\t\r\n＝＋－＠]|'")


def write_trace(trace: RoutingTrace, kind: TraceFormat, folder: Path) -> Path:
    """Write a trace into a folder, under a name made from its bank and the time."""
    bank = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(trace.bank).name).strip("-") or "bank"
    path = folder / f"trace-{bank}-{datetime.now():%Y%m%d-%H%M%S}.{kind}"
    if kind == "parquet":
        save_trace(trace, path)
    else:
        spreadsheet_safe(routing_frame(trace)).to_csv(path, index=False)
    return path


def spreadsheet_safe(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy in which no text can run as a formula: such cells begin with an apostrophe.

    Text that begins with an apostrophe gets one more, so taking one away gives the original back.
    """
    guarded = frame.rename(columns=_guarded)
    for name in guarded.columns:
        if not pd.api.types.is_numeric_dtype(guarded[name]):
            guarded[name] = guarded[name].astype(object).map(_guarded)
    return guarded


def _guarded(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if _FORMULA.match(text) else text
