"""Texts that a command is given: as an option, as a file, on stdin."""

import sys
from pathlib import Path

from lmoe_studio.errors import StorageError, TextError


def given_text(text: str | None, file: Path | None, option: str = "--text") -> str:
    """The text of an option, else of the file, else of stdin.

    Raises: TextError where both are given.
    """
    if text is not None and file is not None:
        raise TextError(f"Give {option} or --file, not both.")
    if text is not None:
        return text
    return sys.stdin.read() if file is None else read_text(file)


def read_text(file: Path) -> str:
    """Raises: StorageError where the file cannot be read or is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise StorageError(f"{file} is not UTF-8 text (byte {error.start}).") from None
