"""The scripts and styles in `assets/`, read as package data."""

import re
from importlib.resources import files

PAGE_SCRIPTS = (
    "studio.js",
    "sidebar.js",
    "kept.js",
    "view.js",
    "particulars.js",
    "preview.js",
    "tokens.js",
    "cutlines.js",
    "strip.js",
    "marks.js",
    "heatmap.js",
    "detail.js",
    "controls.js",
    "plans.js",
    "mixer.js",
    "overrides.js",
    "history.js",
    "hotkeys.js",
    "curve.js",
    "training.js",
    "keys.js",
)
"""What the scripts of drawn components share."""

DRAWN_SCRIPTS = (
    "facts",
    "workbench",
    "composer",
    "picker",
    "comparison",
    "skills",
    "adapters",
    "options",
    "sequences",
    "joblist",
    "jobhead",
    "jobcurves",
    "jobdetails",
    "exports",
)
"""Scripts that draw one component each; in the page they are functions, sent once."""


DRAWN_STYLES = {
    "facts": (),
    "workbench": ("workbench.css",),
    "comparison": ("workbench.css", "comparison.css"),
    "composer": ("composer.css",),
    "picker": ("picker.css",),
    "skills": ("skills.css",),
    "adapters": ("skills.css", "options.css", "adapters.css"),
    "options": ("options.css",),
    "sequences": ("sequences.css",),
    "jobs": ("jobs.css", "curves.css"),
    "exports": ("exports.css",),
}
"""Styles of each kind of drawn component, besides those of `pieces.css`; sent once."""


_LEFT_OUT = re.compile(r"^[ \t]*//.*\n|^[ \t]+", re.MULTILINE)
"""Comments that have a line of their own, and indentation: an eighth of all. No script holds a text
that runs over several lines."""


def page_script() -> str:
    """Everything that the page's components call."""
    drawn = (
        f"function draw_{name}({{ element, props, trigger, watch, upload }}, SETUP) {{\n"
        f"{read_asset(f'{name}.js')}\n}}"
        for name in DRAWN_SCRIPTS
    )
    return _LEFT_OUT.sub("", "\n".join([read_asset(*PAGE_SCRIPTS), *drawn]))


def drawn_styles() -> str:
    """Styles of all drawn components, each in force only inside its own kind.

    A component of the kind `x` has the classes `drawn` and `drawn-x`.
    """
    kinds_of: dict[str, list[str]] = {}
    for kind, names in DRAWN_STYLES.items():
        for name in names:
            kinds_of.setdefault(name, []).append(f".drawn-{kind}")
    inside = {"pieces.css": [".drawn"], **kinds_of}
    return "\n".join(
        f"#tabs :is({', '.join(places)}) {{\n{read_asset(name)}\n}}"
        for name, places in inside.items()
    )


def read_asset(*names: str) -> str:
    """The texts of the named files, one after the other."""
    folder = files("lmoe_studio.ui") / "assets"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
