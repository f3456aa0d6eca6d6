"""Locks on files that tell the living from the dead: the kernel frees a lock with its process.

`flock` belongs to the open file, so a process can hand its lock to one that it starts, without a
moment in which nobody holds it.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lmoe_studio.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_PAUSE = 0.01  # seconds between two attempts


@dataclass(frozen=True)
class FileLock:
    """A lock that this process holds."""

    descriptor: int

    @classmethod
    def take(cls, path: Path, *, patience: float = 1.0) -> Self | None:
        """Lock a file, which is made if need be; None where another holds it for longer.

        Args:
            path: the file.
            patience: seconds to keep trying. A process that only looks (`is_locked`) is in the way
                for some microseconds, so a little patience tells it from a holder.

        Raises:
            OSError: the file cannot be made or opened.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        give_up = time.monotonic() + patience
        while not _try(descriptor, exclusive=True):
            if time.monotonic() >= give_up:
                os.close(descriptor)
                return None
            time.sleep(_PAUSE)
        return cls(descriptor)

    @classmethod
    def of_folder(cls, folder: Path, *, wait: bool = False) -> Self | None:
        """Lock a folder itself; None where another holds it, or this system has no file locks.

        Args:
            folder: which.
            wait: until nobody else holds it.

        Raises:
            OSError: there is no such folder, or its file system locks none.
        """
        if fcntl is None:
            return None
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        return cls(descriptor)

    @classmethod
    def inherited(cls, descriptor: int) -> Self:
        """The lock that the process which started this one handed over."""
        os.set_inheritable(descriptor, False)
        return cls(descriptor)

    def release(self) -> None:
        """Let go; a process that inherited the lock goes on holding it."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock; a file that is not there is not locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try(descriptor, exclusive=False)
    finally:
        os.close(descriptor)


def _try(descriptor: int, *, exclusive: bool) -> bool:
    if fcntl is None:
        raise StorageError(
            "Training keeps its folders apart by file locks that this system lacks; use Linux, macOS "
            "or WSL."
        )
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
