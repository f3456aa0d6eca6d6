"""PEFT's own folder: adapter_config.json, and adapter_model.safetensors, whole or in parts."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.adapter_config import CONFIG, MAX_CONFIG_BYTES, read_fields
from lmoe_studio.experts.formats.source import (
    AdapterSource,
    Confirm,
    Format,
    Tensors,
    open_tensors,
)
from lmoe_studio.experts.safetensors_check import HOW_TO_CONVERT, open_regular, show

WEIGHTS = "adapter_model.safetensors"
_PART = re.compile(r"adapter_model-(\d{5})-of-(\d{5})\.safetensors")
_PICKLE_SUFFIXES = {".bin", ".pt", ".pkl", ".ckpt", ".pth"}


def open_peft(folder: Path, *, confirm: Confirm = lambda _, __: None) -> AdapterSource:
    """An adapter as PEFT's `save_pretrained` writes it; parts as transformers' writes them.

    Args:
        folder: which.
        confirm: is shown each file before its contents are used.

    Raises:
        AdapterError: a file is missing, or the configuration is none.
    """
    files = _weights(folder)
    with open_regular(folder / CONFIG) as file:
        raw = file.read(MAX_CONFIG_BYTES + 1)
        if len(raw) <= MAX_CONFIG_BYTES:
            confirm(file, CONFIG)
        fields = read_fields(raw)

    @contextmanager
    def opened() -> Iterator[Tensors]:
        with open_tensors(files, confirm=confirm) as tensors:
            yield tensors

    return AdapterSource(fields, WEIGHTS, opened)


def _weights(folder: Path) -> dict[str, Path]:
    """The file of tensors, or its parts; where there is none, says what to do."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no path"
        raise AdapterError(
            f"{show(folder.name)} cannot be opened as a folder ({reason.lower()}); expected was "
            f"the folder that holds {CONFIG} and {WEIGHTS}."
        ) from None
    parts = _parts(names)
    pickles = [name for name in names if Path(name).suffix.lower() in _PICKLE_SUFFIXES]
    if WEIGHTS not in names and not parts and pickles:
        raise AdapterError(
            f"The adapter has no {WEIGHTS} but {show(pickles[0])}, a pickle, which can run code "
            f"when it is read; {HOW_TO_CONVERT}."
        )
    for name in (CONFIG, WEIGHTS):
        if name not in names and not (name == WEIGHTS and parts):
            raise AdapterError(
                f"The folder {show(folder.name)} has no {name}; expected was a folder as PEFT's "
                f"save_pretrained writes it."
            )
    return {name: folder / name for name in ([WEIGHTS] if WEIGHTS in names else parts)}


def _parts(names: list[str]) -> list[str]:
    """The parts of a file that was cut, all of them. Raises AdapterError where one is missing."""
    found = {name: match for name in names if (match := _PART.fullmatch(name))}
    if not found:
        return []
    count = max(int(match[2]) for match in found.values())
    whole = [f"adapter_model-{place:05}-of-{count:05}.safetensors" for place in range(1, count + 1)]
    missing = [name for name in whole if name not in found]
    if missing:
        raise AdapterError(
            f"The adapter is in {count:,} parts and {missing[0]} is missing; copy the folder again."
        )
    return whole


def _fits(place: Path) -> bool:
    if not (place / CONFIG).is_file():
        return False
    return any(name.name == WEIGHTS or _PART.fullmatch(name.name) for name in place.iterdir())


FORMAT = Format("PEFT", _fits, lambda place, _: open_peft(place))
