"""Where banks are: those that come with the package, the person's own, any other folder. No torch."""

import os
import re
from contextlib import suppress
from importlib import resources
from pathlib import Path

from lmoe_studio.errors import BankError, did_you_mean
from lmoe_studio.home import banks_folder

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def shipped_banks() -> dict[str, Path]:
    """The banks that come with the package, by name."""
    return _banks_in(Path(str(resources.files("lmoe_studio"))) / "banks")


def own_banks() -> dict[str, Path]:
    """The banks in the person's home folder, by name; a shipped bank's name stays that bank's."""
    shipped = shipped_banks()
    return {name: path for name, path in _banks_in(banks_folder()).items() if name not in shipped}


def find_bank(bank: str | Path) -> Path:
    """The folder meant by a name or a path. Raises BankError with the names there are."""
    known = shipped_banks() | own_banks()
    if str(bank) in known:
        return known[str(bank)]
    folder = Path(bank)
    if _is_bank(folder):
        return folder
    with suppress(OSError):
        if folder.is_dir():
            raise BankError(f"The folder {folder} is no bank: it has no bank.json.")
    raise BankError(
        f"There is no bank '{str(bank)[:200]}', neither by that name nor as a folder; "
        f"{did_you_mean(str(bank)[:200], known)}"
    )


def is_local(bank: str | Path) -> bool:
    """Whether a bank is to be looked for here, and not on the hub, whose ids are `user/name`."""
    return isinstance(bank, Path) or not _HUB_ID.fullmatch(bank) or os.path.lexists(bank)


def _banks_in(folder: Path) -> dict[str, Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError:  # not made yet, or not ours to read
        return {}
    return {path.name: path for path in paths if _is_bank(path)}


def _is_bank(folder: Path) -> bool:
    try:
        return (folder / "bank.json").is_file()
    except OSError:  # a name that is too long, or a folder that is not ours to read
        return False
