"""Whether a bank may be written where a config says: nothing of anybody's is lost by training."""

from pathlib import Path
from typing import Any

from lmoe_studio.errors import StorageError
from lmoe_studio.plain_data import read_json
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.data import fingerprints
from lmoe_studio.training.report import portable
from lmoe_studio.training.run_folder import FREE


def check_destination(config: TrainingConfig, run_folder: Path, *, fresh: bool) -> None:
    """Refuse to train where the bank would take the place of something else.

    Free are a new place, an empty folder, and a bank that the same config has made; or any bank if
    the run is begun afresh, or was begun before and goes on.

    Raises:
        StorageError: something else is there.
    """
    out = config.out
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "bank.json").is_file():
        raise StorageError(
            f"{out} is there already and is no bank, so no bank is written there; choose another "
            "`out`."
        )
    goes_on = (run_folder / "run.json").is_file()
    if not (fresh or goes_on or _has_made(config, out)):
        raise StorageError(
            f"{out} holds a bank already, and not one of this config and data; choose another `out`, "
            "or replace it (--fresh)."
        )


def _has_made(config: TrainingConfig, bank: Path) -> bool:
    try:
        report = read_json((bank / "training.json").read_bytes())
        made, data = _learned(report["config"]), report["data_sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return (made, data) == (_learned(portable(config)), fingerprints(config))


def _learned(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in FREE}
