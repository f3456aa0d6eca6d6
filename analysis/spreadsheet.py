"""Frames as CSV that a spreadsheet cannot be made to run."""

import csv
import re
from pathlib import Path

import pandas as pd

_FORMULA = re.compile(r"[\s\u200b\ufeff]*[=+\-@\t\r\n＝＋－＠]|'")


def write_csv(frame: pd.DataFrame, path: Path | str) -> None:
    """Write a frame as CSV, text cells guarded as in `spreadsheet_safe`, numbers untouched."""
    spreadsheet_safe(frame).to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC)


def spreadsheet_safe(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy in which no text can run as a formula: such cells begin with an apostrophe.

    Text that begins with an apostrophe gets one more, so taking one away gives the original back.
    """
    guarded = frame.rename(columns=safe_cell)
    for name in guarded.columns:
        if isinstance(guarded[name].dtype, pd.CategoricalDtype):  # each text once, not each cell
            guarded[name] = guarded[name].cat.rename_categories(safe_cell).astype(object)
        elif not pd.api.types.is_numeric_dtype(guarded[name]):
            guarded[name] = guarded[name].astype(object).map(safe_cell)
    return guarded


def safe_cell(value: object) -> object:
    """A text that could run as a formula with an apostrophe before it; anything else as it is."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
