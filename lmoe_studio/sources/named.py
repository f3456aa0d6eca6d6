"""How a person names a source of texts: a file or folder, a dataset of the hub, an object in Python.

Plain options, so that a config can hold them; nothing is opened here.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from lmoe_studio.config import Config, explain
from lmoe_studio.errors import ConfigError
from lmoe_studio.whole import is_folder

MOST_ROWS = 100_000
_PREFIX = "hf:"
_ID = re.compile(r"[\w][\w.-]{0,95}(/[\w][\w.-]{0,95})?")


class DatasetSource(Config):
    """A dataset of the Hugging Face hub, or a folder that is laid out like one or was saved."""

    dataset: str = Field(description="user/name on the hub, or a folder.")
    config: str | None = Field(default=None, description="Of several the one to take.")
    split: str | None = Field(
        default=None, description="None takes `train`, or the only one that there is."
    )
    take: int = Field(default=MOST_ROWS, ge=1, description="At most so many rows, the first ones.")
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Usual names for columns that have others, e.g. {prompt: question}.",
    )

    @model_validator(mode="after")
    def _is_an_id_or_a_folder(self) -> Self:
        if not (_ID.fullmatch(self.dataset) or self.looks_local):
            raise ValueError(
                f"'{self.dataset[:100]}' is neither user/name on the hub nor a folder (./name)"
            )
        return self

    @classmethod
    def of_line(cls, text: str) -> Self:
        """From one line: `hf:user/name,config=x,split=test,take=500`.

        Raises:
            ConfigError: it is none.
        """
        name, *options = text.removeprefix(_PREFIX).split(",")
        pairs = [option.partition("=") for option in options]
        if any(not equals for _, equals, _ in pairs):
            raise ConfigError(f"{text}: expected {_PREFIX}user/name,split=test,take=500.")
        values = {key.strip(): value.strip() for key, _, value in pairs}
        return cls.parse({"dataset": name.strip(), **values}, source=text)

    @property
    def looks_local(self) -> bool:
        """Whether it is written like a folder."""
        return self.dataset.startswith((".", "/", "~")) or Path(self.dataset).is_absolute()

    def relative_to(self, folder: Path) -> Self:
        """The same with a folder taken from `folder`; what is none there is an id of the hub."""
        place = folder / Path(self.dataset).expanduser()
        if not (self.looks_local or is_folder(place)):
            return self
        return self.model_copy(update={"dataset": str(place.absolute())})

    def __str__(self) -> str:
        parts = [self.dataset, f"config {self.config}" if self.config else ""]
        return ", ".join(
            [*filter(None, parts), f"split {self.split}" if self.split else ""]
        ).rstrip(", ")


@dataclass(frozen=True)
class GivenDataset:
    """A `Dataset`, `IterableDataset` or a dictionary of them that was given in Python."""

    dataset: Any = field(repr=False)

    @property
    def columns(self) -> dict[str, str]:
        return {}

    @property
    def take(self) -> int:
        return MOST_ROWS if _is_stream(self.dataset) else sys.maxsize

    def __str__(self) -> str:
        info, split = getattr(self.dataset, "info", None), getattr(self.dataset, "split", None)
        name = getattr(info, "dataset_name", None) or f"the {type(self.dataset).__name__} given"
        return f"{name}, split {split}" if split else name


Source = Path | DatasetSource | GivenDataset


def as_source(value: Any) -> Source:
    """What a person has given, as a source.

    Raises:
        ValueError: it is none, or an option of it is wrong.
    """
    if isinstance(value, DatasetSource | GivenDataset):
        return value
    if isinstance(value, str | Path) and str(value).startswith(_PREFIX):
        try:
            return DatasetSource.of_line(str(value))
        except ConfigError as error:
            raise ValueError(str(error).rstrip(".")) from None
    if isinstance(value, str | Path):
        return Path(value)
    if isinstance(value, dict) and "dataset" in value:
        try:
            return DatasetSource.model_validate(value)
        except ValidationError as error:
            raise ValueError(explain(DatasetSource, error)) from None
    if is_dataset(value):
        return GivenDataset(value)
    raise ValueError(
        "expected a file, a folder, hf:user/name or a dataset (with `dataset: user/name`), got "
        f"{type(value).__name__}"
    )


def source_value(source: Source) -> str | dict[str, Any]:
    """A source as plain values; an object is only named."""
    if isinstance(source, DatasetSource):
        return source.model_dump(mode="json", exclude_defaults=True)
    return str(source)


def is_dataset(value: Any) -> bool:
    """Whether an object is one of the library `datasets`, which is not imported for this."""
    return any(
        f"{kind.__module__.partition('.')[0]}.{kind.__name__}" in _OBJECTS
        for kind in type(value).__mro__
    )


def _is_stream(value: Any) -> bool:
    return "Iterable" in type(value).__name__


_OBJECTS = {
    f"datasets.{kind}{of}" for kind in ("Dataset", "IterableDataset") for of in ("", "Dict")
}
