"""Checkpoints that are whole or not there: staged, listed with their sha256, synced, then renamed.

checkpoints/
├── .staging/             one that is being written
├── checkpoint-30/        … with manifest.json: step, run and sha256 of every other file
└── .refused-checkpoint-40-1/   one that was damaged, put aside
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from lmoe_studio.plain_data import read_json

_NAME = re.compile(r"checkpoint-(\d+)")
_MANIFEST = "manifest.json"

Refused = Callable[[Path, str], None]
"""Hears of a damaged checkpoint that was put aside: where it is now, and what was wrong."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, run: str) -> None:
        """Open a folder.

        Args:
            folder: made if need be.
            run: names the run; a checkpoint of another one is refused.
        """
        self.folder = folder
        self.run = run
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def staging(self) -> Path:
        """Where the next checkpoint is written, as `checkpoint-N`."""
        return self.folder / ".staging"

    def begin(self) -> None:
        """Make room for a new one; whatever an earlier attempt left is removed."""
        self.abandon()
        self.staging.mkdir(parents=True)
        for left in self.folder.glob(".trash-*"):
            shutil.rmtree(left, ignore_errors=True)

    def abandon(self) -> None:
        """Give up what was staged, and the room it takes."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def publish(self, step: int, keep: int) -> Path:
        """List, sync and rename what was staged for a step; then remove all but the newest `keep`."""
        staged = self.staging / f"checkpoint-{step}"
        files = sorted(path for path in staged.rglob("*") if path.is_file())
        listed = {str(path.relative_to(staged)): _sha256(path) for path in files}
        manifest = {"step": step, "run": self.run, "files": listed}
        (staged / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in (*files, staged / _MANIFEST, staged):
            _sync(path)
        final = self.folder / staged.name
        if final.exists():
            self._trash(final)
        staged.rename(final)
        _sync(self.folder)
        self.staging.rmdir()
        for old in self._found()[keep:]:
            self._trash(old)
        return final

    def newest(self, on_refused: Refused) -> Path | None:
        """The newest checkpoint that is as it was written; damaged ones are put aside."""
        for path in self._found():
            reason = self._damage(path)
            if reason is None:
                return path
            aside = _free_name(path.with_name(f".refused-{path.name}"))
            path.rename(aside)
            on_refused(aside, reason)
        return None

    def _found(self) -> list[Path]:
        named = [
            (match, path) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name))
        ]
        return [path for _, path in sorted(named, key=lambda item: -int(item[0][1]))]

    def _damage(self, path: Path) -> str | None:
        """What is wrong with a checkpoint, if anything."""
        try:
            manifest = read_json((path / _MANIFEST).read_bytes())
            listed, step, run = dict(manifest["files"]), manifest["step"], manifest["run"]
            there = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
            if path.name != f"checkpoint-{step}":
                return f"it was written as checkpoint-{step}"
            if run != self.run:
                return "it belongs to another run"
            if odd := sorted(set(listed) ^ (there - {_MANIFEST})):
                return f"{odd[0]} {'is missing' if odd[0] in listed else 'does not belong to it'}"
            changed = [name for name, digest in listed.items() if _sha256(path / name) != digest]
            return f"{changed[0]} has changed since it was written" if changed else None
        except FileNotFoundError:
            return f"{_MANIFEST} is missing"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return f"{_MANIFEST} cannot be read"

    def _trash(self, path: Path) -> None:
        """Remove a folder in two steps, so that half a checkpoint never bears its name."""
        trash = _free_name(self.folder / f".trash-{path.name}")
        path.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _free_name(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}-{number}") for number in range(1, 10_000))
    return next(name for name in numbered if not name.exists())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
