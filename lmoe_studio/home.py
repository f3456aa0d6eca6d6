"""Folders that are the user's: where a person's banks and jobs are kept, and downloads.

    <home>/
    ├── banks/<name>/    banks that jobs made, found by name
    ├── jobs/<id>/       a folder a job
    └── jobs.sqlite      their states and events

The home folder is `$LMOE_HOME`, the cache folder `$LMOE_CACHE`; unless they are set, both are as the
XDG Base Directory Specification says.
"""

import os
from pathlib import Path

from lmoe_studio.errors import StorageError


def home_folder() -> Path:
    """`$LMOE_HOME`, else `lmoe-studio` in `$XDG_DATA_HOME` or `~/.local/share`.

    Raises:
        StorageError: nothing says where a person's files are.
    """
    return _folder("LMOE_HOME", "XDG_DATA_HOME", ".local/share")


def cache_folder() -> Path:
    """`$LMOE_CACHE`, else `lmoe-studio` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        StorageError: nothing says where a person's files are.
    """
    return _folder("LMOE_CACHE", "XDG_CACHE_HOME", ".cache")


def banks_folder(home: Path | None = None) -> Path:
    """Where banks are found by name, beside those that come with the package."""
    return (home or home_folder()) / "banks"


def _folder(own: str, xdg: str, usual: str) -> Path:
    try:
        if named := os.environ.get(own, "").strip():
            return Path(named).expanduser().absolute()
        # The specification: an empty variable is none, and a relative path is to be ignored.
        shared = Path(os.environ.get(xdg, ""))
        if not shared.is_absolute():
            shared = (Path.home() / usual).absolute()
    except RuntimeError:  # neither $HOME nor an entry of this user tells
        raise StorageError(f"This user has no home folder; set {own} to a folder.") from None
    return shared / "lmoe-studio"
