"""What a file from somebody else must look like before anything else may read it.

Ordinary files only, strict JSON, and a safetensors header that says what its bytes say. The
safetensors library itself lets pass duplicate keys, headers of 100 MB, a hundred thousand tensors
and shapes such as (0, 2**60); all of them are refused here, before it sees the file.
"""

import math
import os
import reprlib
import stat
from collections.abc import Callable, Container
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from lmoe_studio.errors import AdapterError
from lmoe_studio.plain_data import PlainDataError, read_json

MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 10_000
BYTES_PER_VALUE = {"F32": 4, "F16": 2, "BF16": 2}
HOW_TO_CONVERT = (
    "where you trust its author, load it with PEFT once and save it again with save_pretrained, "
    "which writes adapter_model.safetensors"
)

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)
_PICKLES = {b"PK": "a zip archive, as torch.save writes it", b"\x80": "a Python pickle"}
_OTHERS = {b"\x93NUMPY": "a NumPy file", b"GGUF": "a GGUF file", b"\x1f\x8b": "a gzip archive"}

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 120


def show(value: object) -> str:
    """A value from a file, fit for a message: control characters escaped, cut where too long."""
    return _repr.repr(value)


def open_regular(path: Path) -> BufferedReader:
    """Opens an ordinary file; never follows a link and never waits on a pipe."""
    try:
        _require_regular(path.lstat().st_mode, path.name)
        # Without the two flags, a link or a pipe put there since the line above would be opened.
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | flags), "rb")
    except OSError as error:
        raise AdapterError(
            f"{path.name} cannot be read ({error.strerror}); check the file and its permissions."
        ) from None
    try:
        _require_regular(os.fstat(file.fileno()).st_mode, path.name)
    except AdapterError:
        file.close()
        raise
    return file


def _require_regular(mode: int, name: str) -> None:
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "a device")
        raise AdapterError(
            f"{name} is {kind} where an ordinary file was expected; copy the file itself there."
        )


def require_size(file: BufferedReader, name: str, most: int) -> None:
    """Raises AdapterError for an open file of more than `most` bytes."""
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise AdapterError(
            f"{name} has {size:,} bytes where at most {most:,} were expected; copy the file again."
        )


def strict_json(raw: bytes, name: str) -> dict[str, object]:
    """Parses a JSON object in UTF-8; refuses duplicate keys and the constants NaN and Infinity."""
    try:
        value = read_json(raw, constants=False)
    except PlainDataError as error:
        reason = str(error)
    else:
        if isinstance(value, dict):
            return value
        reason = f"it holds {show(value)} where an object {{…}} was expected"
    raise AdapterError(f"The JSON of {name} is not valid: {reason}; save it again.")


@dataclass(frozen=True)
class Header:
    """The checked beginning of a safetensors file."""

    raw: bytes
    """The bytes themselves, to be handed on in place of a second reading of the file."""
    shapes: dict[str, tuple[int, ...]]
    """The shape of each tensor."""
    metadata: object = None
    """What the file says of itself, unchecked."""


def read_header(file: BufferedReader, name: str, *, axes: Container[int] = (2,)) -> Header:
    """Reads and checks the header of a safetensors file; leaves the file where its data begin.

    Args:
        file: where it begins.
        name: of the file, for messages.
        axes: how many axes a tensor may have; a LoRA has matrices only.

    Raises:
        AdapterError: it is no sound safetensors file, or holds other kinds of tensors.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(9)
    if start[8:] != b"{":
        raise AdapterError(_not_safetensors(start, size, name))
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise AdapterError(
            f"{name} announces a header of {length:,} bytes where at most {MAX_HEADER_BYTES:,} "
            f"were expected; save it again."
        )
    raw = start + file.read(length - 1)
    entries = strict_json(raw[8:], name)
    metadata = entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise AdapterError(
            f"{name} lists {len(entries):,} tensors where at most {MAX_TENSORS:,} were expected; "
            f"take the file of another adapter or bank."
        )
    tensors = {key: _check_entry(key, entry, name, axes) for key, entry in entries.items()}
    _check_cover([(*span, key) for key, (_, span) in tensors.items()], size - len(raw), name)
    return Header(raw, {key: shape for key, (shape, _) in tensors.items()}, metadata)


def _not_safetensors(start: bytes, size: int, name: str) -> str:
    if not size:
        return f"{name} is empty where safetensors were expected; copy the file again."
    for magic, kind in _PICKLES.items():
        if start.startswith(magic):
            return (
                f"{name} is {kind}, which can run code when it is read; expected was a safetensors "
                f"file: {HOW_TO_CONVERT}."
            )
    kind = next(
        (kind for magic, kind in _OTHERS.items() if start.startswith(magic)), "no such file"
    )
    return (
        f"{name} was expected to be a safetensors file and is {kind} (it begins with "
        f"{show(start)}); save it again with PEFT."
    )


def _check_entry(
    key: str, entry: object, name: str, axes: Container[int]
) -> tuple[tuple[int, ...], tuple[int, int]]:
    """The shape of one tensor, and where its data begin and end."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [*span], **rest} if not rest:
            pass
        case _:
            raise AdapterError(
                f"{name} describes the tensor {show(key)} as {show(entry)} where dtype, shape and "
                f"data_offsets were expected; save it again."
            )
    if dtype not in BYTES_PER_VALUE:
        raise AdapterError(
            f"{name} holds the tensor {show(key)} in {show(dtype)} where one of "
            f"{', '.join(BYTES_PER_VALUE)} was expected; convert it to one of them."
        )
    if len(shape) not in axes or not all(_is_count(n) and n > 0 for n in shape):
        expected = "a matrix of [rows, columns]"
        if 1 in axes:
            expected += ", a vector or a stack of matrices"
        raise AdapterError(
            f"{name} holds the tensor {show(key)} with shape {show(shape)} where {expected} was "
            f"expected; take the file of another adapter or bank."
        )
    num_bytes = math.prod(shape) * BYTES_PER_VALUE[dtype]
    if len(span) != 2 or not all(map(_is_count, span)) or span[1] - span[0] != num_bytes:
        raise AdapterError(
            f"{name} gives the tensor {show(key)} the data_offsets {show(span)} where two numbers "
            f"{show(num_bytes)} apart were expected; copy the file again."
        )
    return tuple(shape), (span[0], span[1])


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0  # True is an int too


def _check_cover(spans: list[tuple[int, int, str]], num_bytes: int, name: str) -> None:
    """The tensors must lie one after the other and fill the rest of the file."""
    position = 0
    for begin, end, key in sorted(spans):
        if begin != position:
            raise AdapterError(
                f"{name} has the data of tensor {show(key)} begin at byte {show(begin)} where "
                f"{position:,} was expected; save it again."
            )
        position = end
    if position != num_bytes:
        raise AdapterError(
            f"{name} holds {num_bytes:,} bytes of data where its header announces "
            f"{show(position)}; copy the file again."
        )
