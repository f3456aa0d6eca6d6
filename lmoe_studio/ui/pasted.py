"""Pasted text becomes a file of the kind that it looks like."""

from pathlib import Path

_COLUMNS = ({"text"}, {"prompt", "response"})  # a first line with these is that of a CSV file


def write_pasted(pasted: str, folder: Path) -> Path:
    """Write pasted text down: as JSONL, as CSV, or as plain text.

    It is JSONL if it begins like that, and CSV if its first line names columns that hold texts.
    """
    path = folder / f"pasted.{_kind(pasted)}"
    path.write_text(pasted.lstrip("\ufeff \n"), encoding="utf-8", errors="replace")
    return path


def _kind(pasted: str) -> str:
    header = (pasted.lstrip("\ufeff \n").splitlines() or [""])[0]
    if header.startswith("{"):
        return "jsonl"
    names = {name.strip('" ') for name in header.split(",")}
    return "csv" if "," in header and any(columns <= names for columns in _COLUMNS) else "txt"
