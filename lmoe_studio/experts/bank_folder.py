"""The files of a bank folder, which may come from a stranger: each is looked at before it is used.

Only ordinary files inside the folder are opened, none larger than its kind can be, and only those
that manifest.json lists, as it lists them.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from lmoe_studio.errors import AdapterError, BankError
from lmoe_studio.experts.adapter import read_adapter
from lmoe_studio.experts.lora import LoraAdapter
from lmoe_studio.experts.safetensors_check import open_regular, read_header, require_size, show
from lmoe_studio.experts.safetensors_load import load_tensors
from lmoe_studio.plain_data import PlainDataError, read_json

MANIFEST = "manifest.json"
CARD = "README.md"

_MAX_JSON_BYTES = 8 << 20
_MAX_ROUTER_BYTES = 2 << 30
_MAX_NAME = 500


class BankFolder:
    """Reads the files of one bank; what is wrong with one is a BankError that names it.

    (An AdapterError where it is an expert that is no sound LoRA.)
    """

    def __init__(self, folder: Path) -> None:
        """Reads manifest.json and looks whether all that it lists is there."""
        self._folder = folder
        self._digests: dict[str, str] = {}
        with self._naming_the_bank(), self._open(MANIFEST, _MAX_JSON_BYTES) as file:
            listed = _plain_object(file.read(), MANIFEST)
        for name, digest in listed.items():
            if not _is_inside(name):
                raise BankError(
                    f"{folder}: {MANIFEST} names {show(name)}, outside the folder; copy the bank "
                    "again."
                )
            if name != CARD and not (folder / name).is_file():
                raise BankError(f"{folder} is incomplete: {name} is missing; copy the bank again.")
            self._digests[name] = str(digest)

    def has(self, name: str) -> bool:
        """Whether the bank has a file that it need not have."""
        return os.path.lexists(self._folder / name)

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object."""
        with self._naming_the_bank(), self._open(name, _MAX_JSON_BYTES) as file:
            self._confirm(file, name)
            return _plain_object(file.read(), name)

    def tensors(self, name: str) -> tuple[dict[str, Tensor], object]:
        """Tensors of one to three axes, and what their file says of itself."""
        with self._naming_the_bank(), self._open(name, _MAX_ROUTER_BYTES) as file:
            header = read_header(file, name, axes=(1, 2, 3))
            self._confirm(file, name)
            return load_tensors(file, header, name), header.metadata

    def adapter(self, name: str) -> LoraAdapter:
        """The adapter in a folder of the bank."""

        def confirm(file: BufferedReader, of: str) -> None:
            self._confirm(file, f"{name}/{of}")

        try:
            self._require_folders(f"{name}/x")
            return read_adapter(self._folder / name, None, confirm=confirm)
        except AdapterError as error:
            raise AdapterError(f"{self._folder}, {name}: {error}") from None

    def _open(self, name: str, most: int) -> BufferedReader:
        self._require_folders(name)
        file = open_regular(self._folder / name)
        try:
            require_size(file, name, most)
        except AdapterError:
            file.close()
            raise
        return file

    def _require_folders(self, name: str) -> None:
        """No link on the way to a file leads out of the bank."""
        path = self._folder
        for part in PurePosixPath(name).parts[:-1]:
            path /= part
            try:
                is_folder = stat.S_ISDIR(path.lstat().st_mode)
            except OSError:
                is_folder = False
            if not is_folder:
                raise AdapterError(
                    f"{path.relative_to(self._folder)} is missing, or a link or a file where a "
                    "folder was expected; copy the bank again."
                )

    def _confirm(self, file: BufferedReader, name: str) -> None:
        """Whether an open file is what the manifest says; leaves it at the same place."""
        listed = self._digests.get(name)
        if listed is None:
            raise BankError(
                f"{self._folder}: {name} is not listed in {MANIFEST}, as every file of a bank is; "
                "copy the bank again."
            )
        place = file.tell()
        file.seek(0)
        if hashlib.file_digest(file, "sha256").hexdigest() != listed:
            raise BankError(f"{self._folder} is damaged: {name} has changed; copy the bank again.")
        file.seek(place)

    @contextmanager
    def _naming_the_bank(self) -> Iterator[None]:
        try:
            yield
        except AdapterError as error:
            raise BankError(f"{self._folder}: {error}") from None


def read_text(folder: Path, name: str) -> str | None:
    """A text file of a bank that anyone may have edited; None where it is not there.

    Raises:
        BankError: it is no ordinary file, or too large.
    """
    if not os.path.lexists(folder / name):
        return None
    try:
        with open_regular(folder / name) as file:
            require_size(file, name, _MAX_JSON_BYTES)
            return file.read().decode("utf-8", "replace")
    except AdapterError as error:
        raise BankError(f"{folder}: {error}") from None


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    is_plain = name.isprintable() and 0 < len(name) <= _MAX_NAME
    return is_plain and not path.is_absolute() and ".." not in path.parts


def _plain_object(raw: bytes, name: str) -> dict[str, Any]:
    """A JSON object that can be printed and written again."""
    try:
        values = read_json(raw)
        json.dumps(values, ensure_ascii=False).encode()
    except PlainDataError as error:
        raise AdapterError(f"{name} is no JSON ({error}); copy the bank again.") from None
    except UnicodeEncodeError:
        raise AdapterError(f"{name} holds half a character; copy the bank again.") from None
    if not isinstance(values, dict):
        raise AdapterError(f"{name} holds no JSON object; copy the bank again.")
    return values
