"""The folder of a new job: with an id, what is trained, and copies of the texts where they are wanted."""

import os
import secrets
from pathlib import Path

from lmoe_studio.errors import DataError, StorageError
from lmoe_studio.jobs.folder import lock_file, with_copied_data, write_config
from lmoe_studio.locks import FileLock
from lmoe_studio.training.config import TrainingConfig

_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # none that is taken for another
_ID_LENGTH = 5


def check_files(config: TrainingConfig) -> None:
    """Raises DataError, naming the first file of texts that cannot be read."""
    for skill in config.skills:
        for file in (*skill.train, *skill.held_out):
            if isinstance(file, Path) and not os.access(file, os.R_OK):
                why = "cannot be read" if file.exists() else "is not there"
                raise DataError(f"{file}, of skill '{skill.name}', {why}.")


def new_folder(jobs: Path) -> tuple[Path, FileLock]:
    """A folder with a new id as its name, locked from its beginning.

    Raises:
        StorageError: it cannot be made.
    """
    while True:
        folder = jobs / "".join(secrets.choice(_LETTERS) for _ in range(_ID_LENGTH))
        try:
            folder.mkdir()
            lock = FileLock.take(lock_file(folder))
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(f"{folder} cannot be made: {error.strerror or error}.") from None
        if lock is not None:  # else somebody looks at it for longer than one looks at a folder
            return folder, lock


def fill(folder: Path, config: TrainingConfig, *, copy_data: bool) -> None:
    """Write down what is trained.

    Raises:
        StorageError: it cannot be written, or a text not be copied.
        HubError, DataError: the rows of a dataset cannot be had.
    """
    try:
        config = with_copied_data(config, folder, given_only=not copy_data)
        write_config(_with_absolute_paths(config), folder)
    except OSError as error:
        where = error.filename or folder
        raise StorageError(f"{where} cannot be copied or written: {error.strerror}.") from None


def _with_absolute_paths(config: TrainingConfig) -> TrainingConfig:
    """A config that means the same wherever it is read."""
    config = config.relative_to(Path.cwd())
    folders = {
        field: str(Path(value).absolute())
        for field in ("base", "bank")
        if (value := getattr(config, field)) is not None and Path(value).is_dir()
    }
    return config.model_copy(update=folders)
