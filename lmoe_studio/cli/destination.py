"""Where a command is to write: looked at before the work, so that none is done in vain."""

import os
from pathlib import Path

from lmoe_studio.errors import StorageError
from lmoe_studio.whole import require_free, require_name


def require_file_place(out: Path | None) -> None:
    """Make the folder that a file is to be written to.

    Raises:
        StorageError: no file can be written there.
    """
    if out is None:
        return
    require_name(out)
    if out.is_dir():
        raise StorageError(f"{out} is a folder; give the name of a file.")
    require_folder_place(out.parent)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(out, error.strerror or str(error)) from None
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise _unwritable(out, "no permission to write there")


def require_folder_place(out: Path) -> None:
    """Look whether a folder can be written or made.

    Raises:
        StorageError: it cannot, or is a file.
    """
    require_name(out)
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise _unwritable(out, f"{there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _unwritable(out, f"no permission to write in {there}")


def require_new_folder(out: Path) -> None:
    """Look whether a folder can be made.

    Raises:
        StorageError: it cannot, or something is there.
    """
    require_folder_place(out)
    require_free(out)


def _unwritable(out: Path, why: str) -> StorageError:
    return StorageError(f"{out} cannot be written: {why}; name another place.")
