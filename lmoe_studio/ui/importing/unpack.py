"""Uploaded files become folders with one adapter each. An archive comes from a stranger.

Of an archive only the files of adapters are unpacked, under names of ours, and what comes out is
counted as it comes, whatever the archive announces. A pickle is never unpacked.
"""

import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lmoe_studio.errors import DataError
from lmoe_studio.ui.importing.asked import MOST_ADAPTERS, PARTS, PICKLE, GivenAdapter

MOST_UNPACKED = 512 * 2**20
"""Bytes of all that one import unpacks; trained tensors hardly get smaller in an archive."""
_MOST_MEMBERS = 20_000
_ENTRY = b"PK\x01\x02"  # stands before every entry of an archive's directory
_CHUNK = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Room:
    """How many bytes may still be unpacked."""

    def __init__(self, most: int = MOST_UNPACKED) -> None:
        self._most = self._left = most

    def take(self, count: int, archive: str) -> None:
        self._left -= count
        if self._left < 0:
            raise DataError(
                f"{archive} unpacks to more than the {self._most >> 20:,} MB that a page takes; import "
                "the adapters with `lmoe import`."
            )


def lay_out(given: GivenAdapter, place: Path, room: Room) -> dict[str, Path]:
    """Folders with an adapter each, by the names of the experts; what is in them is not checked.

    Args:
        given: what was uploaded, or a folder.
        place: an empty folder to put them into.
        room: what may still be unpacked.

    Raises:
        DataError: an archive is none, is locked or too large, or holds no adapter.
    """
    if given.folder is not None:
        return {given.name: given.folder}
    found: dict[str, Path] = {}
    for name, file in given.files.items():
        if name.lower().endswith(".zip"):
            found |= _unpack(file, name, place, given.name, room)
    if found:
        return found
    folder = place / given.name
    folder.mkdir(parents=True)
    for name, file in given.files.items():
        _put(file, folder / name)
    for name in given.others:
        (folder / name).touch()
    return {given.name: folder}


def _put(file: Path, place: Path) -> None:
    try:
        os.link(file, place)
    except OSError:  # another disk
        shutil.copyfile(file, place)


def _unpack(file: Path, name: str, place: Path, expert: str, room: Room) -> dict[str, Path]:
    if file.read_bytes().count(_ENTRY) > _MOST_MEMBERS:
        raise DataError(f"{name} holds more than {_MOST_MEMBERS:,} files; pack the adapters alone.")
    try:
        opened = zipfile.ZipFile(file)
    except Exception:  # of what is damaged, the library lets out any kind
        raise _unsound(name) from None
    with opened as archive:
        members = _members(archive, name)
        names = _expert_names(list(members), expert)
        for folder, found in members.items():
            made = place / names[folder]
            made.mkdir(parents=True)
            for info in found:
                _write(archive, info, made, name, room)
    return {named: place / named for named in names.values()}


def _members(archive: zipfile.ZipFile, name: str) -> dict[PurePosixPath, list[zipfile.ZipInfo]]:
    """The files of adapters, by the folder of the archive that they are in."""
    found: dict[PurePosixPath, list[zipfile.ZipInfo]] = {}
    for info in archive.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.name in (*PARTS, PICKLE) and "__MACOSX" not in path.parts:
            found.setdefault(path.parent, []).append(info)
    if not found:
        raise DataError(f"{name} holds no {PARTS[0]} and no {PARTS[1]}, which make an adapter.")
    if len(found) > MOST_ADAPTERS:
        raise DataError(
            f"{name} holds {len(found):,} adapters, and a page imports at most {MOST_ADAPTERS}."
        )
    return found


def _expert_names(folders: list[PurePosixPath], expert: str) -> dict[PurePosixPath, str]:
    """What each adapter's expert is called: as was asked, or where there are several, as its folder."""
    if len(folders) == 1:
        return {folders[0]: expert}
    names: dict[PurePosixPath, str] = {}
    for folder in folders:
        plain = re.sub(r"[^\w.+-]+", "-", folder.name).strip("-.+")[:60] or expert
        taken = set(names.values())
        numbered = (f"{plain}-{number}" for number in range(2, MOST_ADAPTERS + 2))
        names[folder] = plain if plain not in taken else next(n for n in numbered if n not in taken)
    return names


def _write(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path, name: str, room: Room
) -> None:
    """One member, in a folder of ours; of a pickle only its name."""
    place = folder / PurePosixPath(info.filename.replace("\\", "/")).name
    if place.name == PICKLE:
        place.touch()
        return
    if info.flag_bits & 1:
        raise DataError(f"{name} is locked with a password; pack it without one.")
    if info.compress_type not in _METHODS:
        raise DataError(f"{name} is packed in a way that is not read here; pack it as plain .zip.")
    with place.open("wb") as target:
        for chunk in _contents(archive, info, name):
            room.take(len(chunk), name)
            target.write(chunk)


def _contents(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Iterator[bytes]:
    try:
        with archive.open(info) as source:
            while chunk := source.read(_CHUNK):
                yield chunk
    except Exception:
        raise _unsound(name) from None


def _unsound(name: str) -> DataError:
    return DataError(f"{name} is no sound .zip file; pack it again.")
