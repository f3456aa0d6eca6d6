"""RunFolder: what an unfinished run keeps, and whether it may go on.

<bank>.run/
├── run.json        config, base and data that the run was begun with
├── lock            held while a process trains here
├── data/           rows of datasets, taken once
└── checkpoints/
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lmoe_studio.base_models import BaseIdentity
from lmoe_studio.errors import ResumeError, StorageError
from lmoe_studio.locks import FileLock
from lmoe_studio.plain_data import read_json
from lmoe_studio.training.checkpoints import Checkpoints
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.identity import Digests, differences, run_identity


class RunFolder:
    """The folder of one run, held by this process."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self._identity = identity
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.checkpoints = Checkpoints(folder / "checkpoints", digest[:16])

    @classmethod
    @contextmanager
    def opened(
        cls,
        folder: Path,
        config: TrainingConfig,
        data: Digests,
        base: BaseIdentity,
        *,
        fresh: bool,
        processes: int = 1,
        shared: bool = False,
    ) -> "Iterator[RunFolder]":
        """Take hold of a run's folder.

        Args:
            folder: made if need be.
            config: what is to be trained.
            data: of its files.
            base: over which base model.
            fresh: throw away what an earlier run left there.
            processes: how many train together.
            shared: another process of the same run holds the folder.

        Raises:
            ResumeError: the run that was begun there is another one; the message says how.
            StorageError: the folder cannot be written, or another process trains there.
        """
        identity = run_identity(config, data, base, processes)
        with ExitStack() as held:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                if not shared:
                    held.enter_context(_lock(folder))
                    _begin(folder, config, identity, fresh=fresh)
                run = cls(folder, identity)
            except OSError as error:
                raise StorageError(
                    f"The run cannot be kept in {folder}: {error.strerror or error}."
                ) from None
            yield run

    def remove(self) -> None:
        """The bank is written: nothing of the run is needed any more.

        Checkpoints go first: a kill half-way leaves what is left with the run that it belongs to.
        """
        shutil.rmtree(self.checkpoints.folder, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def begun_with(folder: Path) -> dict[str, Any] | None:
    """The identity of the run that was begun in a folder; None if it is lost, or there is none."""
    try:
        values = read_json((folder / "run.json").read_bytes())
        return values if isinstance(values, dict) else None
    except (OSError, ValueError):
        return None


def has_checkpoints(folder: Path) -> bool:
    """Whether there is something in a run's folder to go on from."""
    return any((folder / "checkpoints").glob("checkpoint-*"))


def _lock(folder: Path) -> FileLock:
    lock = FileLock.take(folder / "lock")
    if lock is None:
        raise StorageError(
            f"Another process is training in {folder}; wait for it, or choose another place."
        )
    return lock


def _begin(folder: Path, config: TrainingConfig, identity: dict[str, Any], *, fresh: bool) -> None:
    file = folder / "run.json"
    if fresh:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    elif has_checkpoints(folder):
        begun = begun_with(folder)
        if begun is not None:  # else each checkpoint tells whether it is of this run
            _refuse_another(folder, list(differences(begun, identity, config)))
    staged = file.with_suffix(".new")
    staged.write_text(json.dumps(identity, indent=1, ensure_ascii=False), encoding="utf-8")
    staged.replace(file)


def _refuse_another(folder: Path, changes: list[str]) -> None:
    if changes:
        shown = "; ".join(changes[:4]) + (f"; and {len(changes) - 4} more" if changes[4:] else "")
        raise ResumeError(
            f"The unfinished run in {folder} was begun differently ({shown}); put that back, or "
            "start afresh (--fresh), which throws its checkpoints away."
        )
