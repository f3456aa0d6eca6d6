"""Whether a bank may be written where a config says: nothing of anybody's is lost by training."""

from pathlib import Path
from typing import Any

from lmoe_studio.errors import StorageError
from lmoe_studio.plain_data import read_json
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.identity import FREE, Digests, bank_digest, run_identity
from lmoe_studio.training.report import portable
from lmoe_studio.training.run_folder import begun_with, has_checkpoints
from lmoe_studio.whole import require_name


def check_destination(
    config: TrainingConfig, data: Digests, run_folder: Path, *, fresh: bool, processes: int = 1
) -> None:
    """Refuse to train where the bank would take the place of something else.

    Free are a new place, an empty folder, and a bank that the same config has made; or any bank if
    the run is begun afresh, or was begun before and goes on.

    Args:
        config: what is to be trained, and where to.
        data: of its files.
        run_folder: where a run that was begun before lies.
        fresh: whether any bank may be replaced.
        processes: how many train together.

    Raises:
        StorageError: something else is there.
    """
    out = config.out
    require_name(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "bank.json").is_file():
        raise StorageError(
            f"{out} is there already and is no bank, so no bank is written there; choose another "
            "`out`."
        )
    identity = run_identity(config, data, None, processes)
    if not (fresh or _goes_on(run_folder, identity) or _has_made(config, data, out)):
        raise StorageError(
            f"{out} holds a bank already, and not one of this config and data; choose another `out`, "
            "or replace it (--fresh)."
        )


def _goes_on(run_folder: Path, identity: dict[str, Any]) -> bool:
    """Whether a run was begun there that goes on, or that is refused by its own folder."""
    begun = begun_with(run_folder)
    return begun is not None and (
        has_checkpoints(run_folder) or {**begun, "base": None} == identity
    )


def _has_made(config: TrainingConfig, data: Digests, bank: Path) -> bool:
    try:
        report = read_json((bank / "training.json").read_bytes())
        made = _learned(report["config"]), report["data_sha256"], report["bank_sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return made == (_learned(portable(config)), data, bank_digest(config))


def _learned(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in FREE}
