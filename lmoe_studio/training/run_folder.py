"""RunFolder: what an unfinished run keeps, and whether it may go on.

<bank>.run/
├── run.json        config, base and data that the run was begun with
├── lock            held while a process trains here
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
from lmoe_studio.experts.places import find_bank
from lmoe_studio.locks import FileLock
from lmoe_studio.plain_data import read_json
from lmoe_studio.text_rows import sha256
from lmoe_studio.training.checkpoints import Checkpoints
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.data import fingerprints

FREE = ("name", "out", "device", "keep_checkpoints")
"""Options that may differ after a resume: they do not change what is learned."""


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
            base: over which base model.
            fresh: throw away what an earlier run left there.
            processes: how many train together.
            shared: another process of the same run holds the folder.

        Raises:
            ResumeError: the run that was begun there is another one; the message says how.
            StorageError: the folder cannot be written, or another process trains there.
        """
        identity = _identity(config, base, processes)
        with ExitStack() as held:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                if not shared:
                    held.enter_context(_lock(folder))
                    _begin(folder, identity, fresh=fresh)
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


def _identity(config: TrainingConfig, base: BaseIdentity, processes: int) -> dict[str, Any]:
    options = config.model_dump(mode="json", exclude=set(FREE))
    for skill in options["skills"]:
        del skill["train"], skill["held_out"]  # wherever they lie, their content counts
    options["router"] = config.router.model_dump(mode="json")
    return {
        "options": options,
        "data": fingerprints(config),
        "base": base.fingerprint,
        "bank": sha256(find_bank(config.bank) / "manifest.json") if config.bank else None,
        "processes": processes,
    }


def _lock(folder: Path) -> FileLock:
    lock = FileLock.take(folder / "lock")
    if lock is None:
        raise StorageError(
            f"Another process is training in {folder}; wait for it, or choose another place."
        )
    return lock


def _begin(folder: Path, identity: dict[str, Any], *, fresh: bool) -> None:
    file = folder / "run.json"
    if fresh:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    elif any((folder / "checkpoints").glob("checkpoint-*")):
        begun = _read(file)
        if begun is not None:  # else each checkpoint tells whether it is of this run
            _refuse_another(folder, begun, identity)
    staged = file.with_suffix(".new")
    staged.write_text(json.dumps(identity, indent=1, ensure_ascii=False), encoding="utf-8")
    staged.replace(file)


def _refuse_another(folder: Path, begun: dict[str, Any], now: dict[str, Any]) -> None:
    changes = list(_differences(begun, now))
    if changes:
        shown = "; ".join(changes[:4]) + (f"; and {len(changes) - 4} more" if changes[4:] else "")
        raise ResumeError(
            f"The unfinished run in {folder} was begun differently ({shown}); put that back, or "
            "start afresh (--fresh), which throws its checkpoints away."
        )


def _differences(begun: Any, now: Any, path: str = "") -> Iterator[str]:
    if isinstance(begun, dict) and isinstance(now, dict):
        for key in sorted({*begun, *now}):
            yield from _differences(begun.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif isinstance(begun, list) and isinstance(now, list) and len(begun) == len(now):
        for number, (a, b) in enumerate(zip(begun, now, strict=True)):
            yield from _differences(a, b, f"{path}[{number}]")
    elif begun != now:
        part, _, name = path.partition(".")
        if part in ("base", "bank", "data"):
            yield f"{name or part} has another content"
        else:
            yield f"{name or part} was {json.dumps(begun)}, is {json.dumps(now)}"


def _read(file: Path) -> dict[str, Any] | None:
    """What the run was begun with; None if it is lost."""
    try:
        values = read_json(file.read_bytes())
        return values if isinstance(values, dict) else None
    except (OSError, ValueError):
        return None
