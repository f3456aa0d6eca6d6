"""Files and folders that are there whole or not at all, also where two processes write one place.

Each is written in a folder beside its place (`staging.py`), and renamed into it. Of two that write one
file, the last stays; of two that make one folder, the first, and the other hears of it.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmoe_studio.errors import StorageError
from lmoe_studio.staging import aside, staging_in

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives the path to write to; what was written is at `path` afterwards, and nothing on an error.

    A device, and a file in a folder that may not be written, are written in place. The folder is there.

    Raises:
        StorageError: no file can have this name.
        OSError: it cannot be written.
    """
    require_name(path)
    path = Path(os.path.realpath(path))  # a link stays one
    if path.exists() and not (path.is_file() and os.access(path.parent, os.W_OK)):
        yield path
        return
    with staging_in(path.parent) as staging:
        staged = staging / "made"
        yield staged
        with staged.open("rb+") as file:
            os.fsync(file.fileno())
        staged.replace(path)


@contextmanager
def whole_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives an empty folder to fill, which is at `folder` afterwards; nothing is on an error.

    Args:
        folder: its place; the folders above it are made.
        overwrite: let it take the place of what is there, which stays until then.

    Raises:
        StorageError: something is there, perhaps since a moment ago.
        OSError: it cannot be written.
    """
    require_name(folder)
    if not overwrite:
        require_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with staging_in(folder.parent) as staging:
        if not overwrite:
            require_free(folder)  # one that was to be replaced may be back
        staged = staging / "made"
        staged.mkdir()
        yield staged
        if overwrite:
            aside(folder, staging)
        try:
            staged.rename(folder)
        except OSError as error:
            if error.errno in _TAKEN:
                raise _taken(folder) from None
            raise


def require_free(folder: Path) -> None:
    """Look whether a folder can be made. Raises StorageError where something is there."""
    if os.path.lexists(folder):
        raise _taken(folder)


def require_name(path: Path) -> None:
    """Look whether a system can have such a name. Raises StorageError."""
    if "\0" in str(path):
        raise StorageError(f"{str(path)!r} holds a NUL, which no name has; name another place.")
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            longest = max(path.parts, key=len)[:40]
            raise StorageError(f"{longest}… is too long a name; name another place.") from None


def is_folder(path: Path) -> bool:
    """Whether a folder is there; none is under a name that is too long, or not ours to look at."""
    with suppress(OSError):
        return path.is_dir()
    return False


def _taken(folder: Path) -> StorageError:
    return StorageError(f"{folder} is there already; choose another place, or remove it first.")
