"""The scripts and styles in `assets/`, read as package data."""

from importlib.resources import files

PAGE_SCRIPTS = (
    "view.js",
    "preview.js",
    "tokens.js",
    "strip.js",
    "heatmap.js",
    "detail.js",
    "controls.js",
    "plans.js",
    "mixer.js",
    "overrides.js",
    "hotkeys.js",
    "training.js",
)
"""Sent once with the page; each drawn component adds only the script that joins them."""


def read_asset(*names: str) -> str:
    """The texts of the named files, one after the other."""
    folder = files("lmoe_studio.ui") / "assets"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
