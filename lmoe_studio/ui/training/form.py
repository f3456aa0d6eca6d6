"""The form as a TrainingConfig, as a file with its command, and back from a file."""

import re
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from lmoe_studio.config import EMBEDDED_BASE
from lmoe_studio.errors import ConfigError
from lmoe_studio.text_rows import files_of
from lmoe_studio.training.config import EXPERT_NAME, SkillConfig, TrainingConfig
from lmoe_studio.training.kept import PARTS, paths_of
from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.training.texts import GivenTexts, Places

_HUB_ID = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")
_MOST_CHARACTERS, _MOST_DEPTH = 200_000, 20
_MOST_ARCHIVE_BYTES = 64_000_000


@dataclass(frozen=True)
class Known:
    """Base models and banks that may be named; any other folder of this machine may not."""

    bases: Collection[str] = ()
    banks: Collection[str] = ()


def form_config(
    name: str, texts: GivenTexts, options: Mapping[str, Any], *, places: Places, known: Known
) -> TrainingConfig:
    """What the form asks for. Raises ConfigError, one sentence a mistake."""
    name = (name or "").strip()
    if not re.match(EXPERT_NAME, name):
        raise ConfigError(
            f"The bank's name: '{clean(name[:80])}' is none; begin with a letter or a digit and go on "
            "with letters, digits, _ . + or -, at most 80."
        )
    values = {**options, "name": name, "out": f"runs/{name}", "skills": list(texts.skills)}
    config = TrainingConfig.parse(values, source="The form")
    if config.bank is not None and config.bank not in known.banks:
        raise ConfigError(
            f"bank: there is no bank '{clean(config.bank[:80])}' in the sidebar's list."
        )
    return config.model_copy(update={"base": checked_base(config.base, places, known)})


def checked_base(base: str, places: Places, known: Known) -> str:
    """A base model that a visitor may name: known here, on the hub, or in the operator's folder."""
    if base == EMBEDDED_BASE or base in known.bases:
        return base
    folder = places.folder(base)
    if folder is not None:
        return str(folder)
    if _HUB_ID.fullmatch(base) and not Path(base).exists():
        return base
    raise ConfigError(
        f"base: '{clean(base[:120])}' is neither {EMBEDDED_BASE}, nor a Hugging Face id, nor a folder "
        "in the operator's data folder."
    )


def config_text(config: TrainingConfig) -> str:
    """The config as a YAML file beside its texts; what is at its default is left out."""
    values = config.model_dump(mode="json", exclude_defaults=True)
    for skill, kept in zip(values["skills"], config.skills, strict=True):
        places = _places(kept)
        for part in PARTS:
            if part in skill:
                skill[part] = [str(places[source]) for source in paths_of(kept, part)]
    order = ("name", "out", "base", "skills")
    values = {key: values[key] for key in (*order, *values) if key in values}
    head = "# What is not named here has its usual value.\n"
    return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def command(config: TrainingConfig) -> str:
    """The command that trains the same."""
    return f"lmoe train {config.name}.yaml"


def write_archive(config: TrainingConfig, folder: Path) -> Path:
    """The config and its texts as one zip file, in which the command works.

    Raises:
        ConfigError: the texts are too many for a page.
    """
    size = sum(
        file.stat().st_size
        for skill in config.skills
        for source in _sources(skill)
        for file in files_of(source)
    )
    if size > _MOST_ARCHIVE_BYTES:
        raise ConfigError(
            f"The texts have {size / 1e6:,.0f} MB and a page packs at most "
            f"{_MOST_ARCHIVE_BYTES / 1e6:,.0f}; copy the file above and put the texts beside it."
        )
    path = folder / f"{config.name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{config.name}.yaml", config_text(config))
        for skill in config.skills:
            for source, place in _places(skill).items():
                for file in files_of(source):
                    archive.write(file, str(place / file.relative_to(source)))
    return path


def _sources(skill: SkillConfig) -> tuple[Path, ...]:
    return tuple(path for part in PARTS for path in paths_of(skill, part))


def _places(skill: SkillConfig) -> dict[Path, PurePath]:
    """Where the texts of a skill lie beside the config; two of one name get numbers."""
    places: dict[Path, PurePath] = {}
    for number, file in enumerate(_sources(skill), start=1):
        place = PurePath("data") / skill.name / file.name
        is_taken = place in places.values() and file not in places
        places[file] = place.with_name(f"{number}-{file.name}") if is_taken else place
    return places


def read_config_text(
    text: str, places: Places, *, source: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A config as YAML or JSON as values for the form, and its experts as rows.

    Texts are taken along only from the operator's folder; other experts come without.

    Args:
        text: the config.
        places: where texts may be taken from.
        source: what a person calls it.

    Raises:
        ConfigError: it is no sound config.
    """
    _check_plain(text, source)
    with TemporaryDirectory(prefix="lmoe-config-") as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(text, encoding="utf-8", errors="replace")
        try:
            config = TrainingConfig.read(file)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(file), source)) from None
    values = config.model_dump(mode="json")
    rows = []
    for skill in config.skills:
        parts = {
            part: [places.name_of(path, file.parent) for path in getattr(skill, part)]
            for part in PARTS
        }
        is_here = bool(places.operator) and all(all(names) for names in parts.values())
        rows.append(
            {
                "name": skill.name,
                "description": skill.description,
                "kind": "folder" if is_here else "paste",
                "places": parts["train"] if is_here else [],
                "held_out": parts["held_out"] if is_here else [],
                "tags": list(skill.tags),
                "source": skill.source,
            }
        )
    return values, rows


def _check_plain(text: str, source: str) -> None:
    """Refuse what is, or would become, too large for a config; YAML can make much of little."""
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"{source}: too large for a config.")
    depth = 0
    try:
        for event in yaml.parse(text):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError(f"{source}: aliases (*name) are not read here; write it out.")
            if depth > _MOST_DEPTH:
                raise ConfigError(f"{source}: nested too deeply for a config.")
    except yaml.YAMLError:
        return  # whoever reads it says so, with the line
