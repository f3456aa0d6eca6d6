"""stdin, stdout and stderr that take any text, and end no command with a traceback.

What an encoding lacks is replaced. Data that cannot be written is an error in one sentence; a reader
that has had enough (`| head`) is none; a message that cannot be said stops nothing.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any, TextIO, cast

from lmoe_studio.errors import StorageError


@contextmanager
def settled_streams() -> Iterator[None]:
    """The three streams, settled for a while."""
    before = sys.stdin, sys.stdout, sys.stderr
    is_closed = sys.stdout is None
    # In this order, as a file takes the lowest number that is free: that of the closed stream.
    sys.stdin, out, err = _open(sys.stdin, "r"), _open(sys.stdout, "w"), _open(sys.stderr, "w")
    sys.stdout, sys.stderr = cast(TextIO, _Data(out, is_closed)), cast(TextIO, _Messages(err))
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def _open(stream: TextIO | None, mode: str) -> TextIO:
    if stream is None:
        return cast(TextIO, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")
    return stream


class _Stream:
    """Another stream, of which some methods are changed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _drop(self) -> None:
        """Send what is still to be written nowhere, as Python tries once more when it ends."""
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


class _Data(_Stream):
    """stdout. Raises StorageError where it cannot be written."""

    def __init__(self, stream: TextIO, is_closed: bool) -> None:
        super().__init__(stream)
        self._is_closed = is_closed

    def write(self, text: str) -> int:
        if self._is_closed and text:
            raise StorageError("stdout is closed, and the command writes to it; open it.")
        with self._failures():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._failures():
            self._stream.flush()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._drop()
            raise SystemExit(1) from None
        except OSError as error:
            self._drop()
            raise StorageError(f"stdout cannot be written: {error.strerror or error}.") from None


class _Messages(_Stream):
    """stderr."""

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._drop()
