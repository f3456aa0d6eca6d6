"""What lies in the folder of a job.

    jobs/<id>/
    ├── config.json     what is trained, with absolute paths
    ├── data/<skill>/   copies of the texts, where they were asked for, and of datasets given in Python
    ├── log.txt         what the process printed
    ├── lock            held by the process as long as it lives
    ├── run/            checkpoints; gone once the bank is written
    └── spare           while it runs: space for a last word on a full disk

It can be looked at, copied, and found again when the record of the job is lost.
"""

import os
import shutil
from pathlib import Path

from lmoe_studio.text_rows import files_of
from lmoe_studio.training.config import SkillConfig, TrainingConfig
from lmoe_studio.training.kept import PARTS, paths_of, with_kept_data

_TAIL = 1_000_000  # bytes of a log that are looked at


def config_file(folder: Path) -> Path:
    """What is trained."""
    return folder / "config.json"


def log_file(folder: Path) -> Path:
    """What the process printed."""
    return folder / "log.txt"


def lock_file(folder: Path) -> Path:
    """Locked while a process takes care of the job."""
    return folder / "lock"


def run_folder(folder: Path) -> Path:
    """Checkpoints, for `run_training`."""
    return folder / "run"


def spare_file(folder: Path) -> Path:
    """Space that a running job gives up when the disk is full."""
    return folder / "spare"


def write_config(config: TrainingConfig, folder: Path) -> None:
    """Write the config whole or not at all."""
    staged = folder / ".config.json"
    config.write(staged)
    with staged.open("rb+") as file:
        os.fsync(file.fileno())
    staged.replace(config_file(folder))


def with_copied_data(config: TrainingConfig, folder: Path, *, given_only: bool) -> TrainingConfig:
    """Copy the texts into the folder; the same config with the copies' names.

    Args:
        config: what is trained.
        folder: of the job.
        given_only: only what was given in Python, which no other process can read.

    Raises:
        OSError: a file cannot be read or written.
        HubError, DataError, StorageError: the rows of a dataset cannot be had, or not be written.
    """
    copies = folder / "data"
    config = with_kept_data(config, copies, given_only=given_only).config
    if given_only:
        return config
    skills = tuple(_with_copies(skill, copies) for skill in config.skills)
    return config.model_copy(update={"skills": skills})


def log_tail(folder: Path, lines: int) -> list[str]:
    """The last lines of the log; none where there is no log."""
    try:
        with log_file(folder).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-lines:] if lines > 0 else []


def _with_copies(skill: SkillConfig, folder: Path) -> SkillConfig:
    copies = {
        part: tuple(
            _copied(file, folder / skill.name / f"{part}-{number}" / file.name)
            if not file.is_relative_to(folder)
            else file
            for number, file in enumerate(paths_of(skill, part))
        )
        for part in PARTS
    }
    return skill.model_copy(update=copies)


def _copied(source: Path, place: Path) -> Path:
    for file in files_of(source):
        copy = place / file.relative_to(source)  # of a file itself the place
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return place
