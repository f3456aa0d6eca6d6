"""Datasets of a config become files in a run's folder; what are files already stay where they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lmoe_studio.errors import DataError
from lmoe_studio.sources.kept import kept_rows
from lmoe_studio.sources.named import GivenDataset, Source
from lmoe_studio.sources.rows import COLUMNS, text_row
from lmoe_studio.training.config import SkillConfig, TrainingConfig

PARTS = ("train", "held_out")


@dataclass(frozen=True)
class KeptData:
    """A config that names files and saved datasets only."""

    config: TrainingConfig
    names: Mapping[Path, str]
    """What those that were made are called by whoever asked."""


def with_kept_data(
    config: TrainingConfig, folder: Path, *, given_only: bool = False, anew: bool = False
) -> KeptData:
    """Take the rows of each dataset once, and keep them.

    Args:
        config: what is to be trained.
        folder: for the files.
        given_only: of those that were given in Python; those of the hub are taken later.
        anew: take them now, whatever is there.

    Raises:
        HubError, DataError: rows cannot be had, or are not sound.
        StorageError: they cannot be written.
    """
    names = dict[Path, str]()

    def kept(source: Source, place: Path) -> Source:
        if isinstance(source, Path) or (given_only and not isinstance(source, GivenDataset)):
            return source
        file = kept_rows(source, place, COLUMNS, check=text_row, anew=anew)
        names[file] = str(source)
        return file

    skills = tuple(
        skill.model_copy(
            update={
                part: tuple(
                    kept(source, folder / skill.name / f"{part}-{number}")
                    for number, source in enumerate(getattr(skill, part))
                )
                for part in PARTS
            }
        )
        for skill in config.skills
    )
    return KeptData(config.model_copy(update={"skills": skills}), names)


def paths_of(skill: SkillConfig, part: str) -> tuple[Path, ...]:
    """The files of a part of a skill whose data is kept.

    Raises:
        DataError: a dataset in it was not kept.
    """
    paths = []
    for source in getattr(skill, part):
        if not isinstance(source, Path):
            raise DataError(f"{source}, of skill '{skill.name}', has to be kept before it is read.")
        paths.append(source)
    return tuple(paths)
