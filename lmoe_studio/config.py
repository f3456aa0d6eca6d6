"""Config: the frozen base of everything a file, a form or a command line can set.

Also the settings that several folders share. No torch here.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from lmoe_studio.errors import ConfigError, did_you_mean
from lmoe_studio.plain_data import PlainDataError, read_yaml

Composition = Literal["output", "factor"]

Quantize = Literal["4bit", "8bit"]
"""How the base model's linear layers are quantised: NF4, or LLM.int8()."""

_MOST_CLAUSES, _MOST_OF_A_NAME = 5, 120

EMBEDDED_BASE = "smollm2-135m-instruct"
"""The base model that needs no model hub."""
EMBEDDED_ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The same there, before its weights were rounded to 4 bits."""


class Config(BaseModel):
    """Frozen options; an unknown key is refused with the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _has_plain_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """To Python, True is the number 1; to whoever wrote it, it is another option's value."""
        if info.field_name is None:
            return value
        kinds = _kinds(cls.model_fields[info.field_name].annotation)
        given = _members(value)
        if kinds & {int, float} and bool not in kinds and any(isinstance(x, bool) for x in given):
            raise ValueError("expected a number, not true or false")
        if any(
            isinstance(x, int) and abs(x) >= 2**63 for x in given
        ):  # too long for a message even
            raise ValueError("expected a number of at most 18 digits")
        return value

    @classmethod
    def parse(cls, values: Any, *, source: str) -> Self:
        """Check plain values. Raises ConfigError, one sentence a mistake, naming `source`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: {explain(cls, error)}.") from None

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a YAML or JSON file (JSON is YAML)."""
        path = Path(path)
        try:
            values = read_yaml(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is not a UTF-8 text file.") from None
        except PlainDataError as error:
            where = f", line {error.line}" if error.line else ""
            raise ConfigError(
                f"{path}{where}: this is not valid YAML or JSON ({error.reason})."
            ) from None
        if not isinstance(values, dict):
            raise ConfigError(
                f"{path}: expected options as `name: value`, got {type(values).__name__}."
            )
        return cls.parse(values, source=str(path))

    def write(self, path: Path | str) -> None:
        """Write JSON for a name that ends in .json, YAML otherwise."""
        values = self.model_dump(mode="json")
        path = Path(path)
        if path.suffix == ".json":
            text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        else:
            text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")


def printable(text: str) -> str:
    """A name from a file, fit for a message: no control characters, cut where too long."""
    short = text if len(text) <= _MOST_OF_A_NAME else text[:_MOST_OF_A_NAME] + "…"
    return short if short.isprintable() else repr(short)


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    if get_origin(annotation) is Literal:
        return set()
    args = get_args(annotation)
    return set().union(*map(_kinds, args)) if args else {annotation}


def explain(cls: type[BaseModel], error: ValidationError) -> str:
    """The mistakes that a model found, one clause each; of many the first few."""
    found = error.errors()
    more = f"; and {len(found) - _MOST_CLAUSES:,} more" if len(found) > _MOST_CLAUSES else ""
    return "; ".join(_sentence(cls, item) for item in found[:_MOST_CLAUSES]) + more


def _sentence(cls: type[BaseModel], item: Any) -> str:
    where = printable(".".join(str(part) for part in item["loc"]))
    if item["type"] == "extra_forbidden":
        hint = did_you_mean(printable(str(item["loc"][-1])), _known_keys(cls, item["loc"][:-1]))
        return f"unknown option '{where}', {hint.rstrip('.')}"
    message = item["msg"].removeprefix("Value error, ")
    given = "" if item["type"] == "missing" else f", got {_shown(item['input'])!r}"
    return f"{where + ': ' if where else ''}{message}{given if where else ''}"


def _members(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, range):
        return (value.start, value.stop)
    return value if isinstance(value, list | tuple) else (value,)


def _shown(value: Any) -> str:
    try:
        return str(value)[:80]
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"


def _known_keys(cls: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    for part in path:
        inner = cls.model_fields.get(str(part))
        annotation = inner.annotation if inner else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        cls = annotation
    return list(cls.model_fields)
