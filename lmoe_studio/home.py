"""The home folder: where a person's own banks and background jobs are kept.

    <home>/
    ├── banks/<name>/    banks that jobs made, found by name
    ├── jobs/<id>/       a folder a job
    └── jobs.sqlite      their states and events

It is `$LMOE_HOME`, else `lmoe-studio` in the user's data folder.
"""

import os
from pathlib import Path


def home_folder() -> Path:
    """`$LMOE_HOME`, else `lmoe-studio` in `$XDG_DATA_HOME` or `~/.local/share`."""
    own = os.environ.get("LMOE_HOME")
    if own:
        return Path(own).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data).absolute() / "lmoe-studio"


def banks_folder(home: Path | None = None) -> Path:
    """Where banks are found by name, beside those that come with the package."""
    return (home or home_folder()) / "banks"
