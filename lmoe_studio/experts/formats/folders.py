"""Which adapters are meant by a file or folder that a person gives.

Training tools write an adapter some folders deeper than the place they are told: PEFT one folder for
each adapter of a model (`out/sql`), transformers one for each checkpoint (`out/checkpoint-500`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.adapter_config import CONFIG
from lmoe_studio.experts.formats.peft import WEIGHTS
from lmoe_studio.experts.formats.registry import holds_adapter
from lmoe_studio.experts.formats.xlora import is_xlora
from lmoe_studio.experts.places import is_local
from lmoe_studio.experts.safetensors_check import show

_CHECKPOINT = re.compile(r"(?:checkpoint|step)-(\d{1,12})")
_NO_NAME = re.compile(r"[^\w.+-]+")
_DEPTH = 3
_MOST_FOLDERS = 200
_NAMED = 5  # in a message


@dataclass(frozen=True)
class Found:
    """The adapters of a place."""

    places: dict[str, Path]
    """Of each, by the name that its expert is to have."""
    notes: tuple[str, ...] = ()
    """What was taken where there was a choice, a sentence each."""


def find_adapters(name: str, given: Path) -> Found:
    """The adapter that a path leads to; the experts, where it is an X-LoRA.

    Args:
        name: what the expert is to be called. Several are called `name-folder`.
        given: a file, the folder of an adapter, or one that has it inside.

    Raises:
        AdapterError: there are several, of which none is the obvious one; or it is not here.
    """
    if not is_local(given.as_posix()):
        raise AdapterError(
            f"There is no folder {show(given.as_posix())}; an adapter of the Hugging Face hub is "
            f"downloaded first: hf download {given.as_posix()} --local-dir FOLDER."
        )
    if given.name in (CONFIG, WEIGHTS):
        given = given.parent
    if is_xlora(given):
        return _experts_of_xlora(name, given)
    place, notes = given, list[str]()
    while not holds_adapter(place) and (inside := _inside(place)):
        place, note = _obvious(place, inside)
        notes.append(note)
    if place == given and (beside := [one for one in _inside(place) if not _step(one)]):
        names = ", ".join(show(one.name) for one in beside[:_NAMED])
        notes.append(
            f"{show(place.name)} holds other adapters too, which were passed over: {names}"
        )
    return Found({name: place}, tuple(notes))


def _experts_of_xlora(name: str, given: Path) -> Found:
    inside = list(_within(given, _DEPTH))
    if not inside:
        raise AdapterError(
            f"{show(given.name)} is an X-LoRA whose experts lie elsewhere: give the folder of each as "
            "an expert of its own (--expert NAME=FOLDER); its classifier cannot be a router here."
        )
    note = (
        f"{show(given.name)} is an X-LoRA: its {len(inside)} experts were taken, and its classifier "
        "was not, which mixes them in a way of its own"
    )
    return Found({f"{name}-{_NO_NAME.sub('-', one.name)}": one for one in inside}, (note,))


def _inside(place: Path) -> list[Path]:
    """Folders of this one that are an adapter or have one inside, in order of their names."""
    return [one for one in _folders(place) if holds_adapter(one) or any(_within(one, _DEPTH - 1))]


def _within(place: Path, depth: int) -> Iterator[Path]:
    """The adapters in a folder, however deep up to a depth; none of those inside another."""
    for one in _folders(place):
        if holds_adapter(one):
            yield one
        elif depth > 1:
            yield from _within(one, depth - 1)


def _folders(place: Path) -> Iterator[Path]:
    try:
        inside = sorted(one for one in place.iterdir() if one.is_dir() and not one.is_symlink())
    except (OSError, ValueError):  # no folder, or not ours to read: reading it will say so
        return
    yield from inside[:_MOST_FOLDERS]


def _step(folder: Path) -> int | None:
    match = _CHECKPOINT.fullmatch(folder.name)
    return int(match[1]) if match else None


def _obvious(place: Path, inside: list[Path]) -> tuple[Path, str]:
    """The only adapter of a folder, or the last of its checkpoints, and a word about it."""
    if len(inside) == 1:
        return inside[
            0
        ], f"{show(inside[0].name)} was taken, the only adapter in {show(place.name)}"
    if all(_step(one) is not None for one in inside):
        last = max(inside, key=lambda one: _step(one) or 0)
        return last, (
            f"{show(last.name)} was taken, the last of {len(inside)} checkpoints in "
            f"{show(place.name)}; give another's folder to take that"
        )
    names = [one.name for one in inside[:_NAMED]]
    more = f" and {len(inside) - _NAMED} more" if len(inside) > _NAMED else ""
    raise AdapterError(
        f"{show(place.name)} holds {len(inside)} adapters ({', '.join(map(show, names))}{more}); give "
        f"the folder of each as an expert of its own, such as --expert NAME={place / names[0]}."
    )
