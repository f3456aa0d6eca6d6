"""What lies in the folder of a job.

    jobs/<id>/
    ├── config.json     what is trained, with absolute paths
    ├── data/<skill>/   copies of the texts, where they were asked for
    ├── log.txt         what the process printed
    ├── lock            held by the process as long as it lives
    ├── run/            checkpoints; gone once the bank is written
    └── spare           while it runs: space for a last word on a full disk

It can be looked at, copied, and found again when the record of the job is lost.
"""

import os
import shutil
from pathlib import Path

from lmoe_studio.training.config import SkillConfig, TrainingConfig

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


def with_copied_data(config: TrainingConfig, folder: Path) -> TrainingConfig:
    """Copy the texts into the folder; the same config with the copies' names.

    Raises:
        OSError: a file cannot be read or written.
    """
    skills = tuple(_with_copies(skill, folder / "data" / skill.name) for skill in config.skills)
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


def _with_copies(skill: SkillConfig, place: Path) -> SkillConfig:
    copies = {
        part: tuple(
            _copied(file, place / f"{part}-{number}" / file.name)
            for number, file in enumerate(getattr(skill, part))
        )
        for part in ("train", "held_out")
    }
    return skill.model_copy(update=copies)


def _copied(file: Path, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, place)
    return place
