"""The formats that are read, and which of them a file or folder has."""

from pathlib import Path

from lmoe_studio.base_models import BaseIdentity
from lmoe_studio.experts.formats import gguf_file, image_tools, mlx, peft
from lmoe_studio.experts.formats.source import AdapterSource

FORMATS = (peft.FORMAT, mlx.FORMAT, gguf_file.FORMAT, image_tools.FORMAT)


def holds_adapter(place: Path) -> bool:
    """Whether a file or a folder looks like one adapter."""
    try:
        return any(one.fits(place) for one in FORMATS)
    except (OSError, ValueError):  # not there, or not ours to read
        return False


def open_adapter(place: Path, base: BaseIdentity) -> AdapterSource:
    """Read an adapter of any format; what has none is told as PEFT's folder that lacks something.

    Raises:
        AdapterError: it is none, or none that can become an expert of this base model.
    """
    try:
        found = next((one for one in FORMATS if one.fits(place)), None)
    except (OSError, ValueError):
        found = None
    return (found or peft.FORMAT).read(place, base)
