"""The scripts and styles in `assets/`, read as package data."""

from importlib.resources import files


def read_asset(*names: str) -> str:
    """The texts of the named files, one after the other."""
    folder = files("lmoe_studio.ui") / "assets"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
