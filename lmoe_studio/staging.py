"""Where files and folders are written before they come to their place, and what is left of the dead.

    .writing-<name>/       locked by who writes there
    ├── …                  what is being made
    └── replaced/<name>    what it takes the place of, for the moment between two renames

Whoever writes next in the same place clears away what a process that was killed has left: a folder that
nobody has locked. What was to be replaced, and was not, goes back.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmoe_studio.locks import FileLock

_PREFIX = ".writing-"  # readers of Parquet folders pass over names with a dot
_REPLACED = "replaced"
_NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What file systems say that cannot lock a folder; then nothing is swept there."""


@contextmanager
def staging_in(parent: Path) -> Iterator[Path]:
    """Gives an empty folder in another, to write in; it is gone afterwards.

    Raises:
        OSError: it cannot be made.
    """
    _sweep(parent)
    folder, lock = _claimed(parent)
    try:
        yield folder
    except BaseException:
        _put_back(folder, parent)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock:
            lock.release()


def aside(folder: Path, staging: Path) -> None:
    """Move a folder out of the way of what was made in `staging`; it comes back if that fails.

    Raises:
        OSError: it cannot be moved.
    """
    place = staging / _REPLACED
    place.mkdir()
    with suppress(FileNotFoundError):  # there is none
        folder.rename(place / folder.name)


def _claimed(parent: Path) -> tuple[Path, FileLock | None]:
    """A new folder and its lock; None where there are no locks: nobody else has one there either."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
        try:
            lock = FileLock.of_folder(folder, wait=True)
        except FileNotFoundError:  # swept before it was locked
            continue
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                folder.rmdir()
                raise
            return folder, None
        if lock is None or folder.exists():
            return folder, lock
        lock.release()


def _sweep(parent: Path) -> None:
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX):
                _sweep_one(parent / entry.name, parent)


def _sweep_one(folder: Path, parent: Path) -> None:
    with suppress(OSError):  # a file, gone by now, or not ours
        lock = FileLock.of_folder(folder)
        if lock is not None:
            with lock:
                _put_back(folder, parent)
                shutil.rmtree(folder, ignore_errors=True)


def _put_back(folder: Path, parent: Path) -> None:
    with suppress(OSError):
        for path in (folder / _REPLACED).iterdir():
            if not os.path.lexists(parent / path.name):
                path.rename(parent / path.name)
