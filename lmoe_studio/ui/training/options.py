"""The options of a training, from the fields of TrainingConfig: their names, help texts and defaults.

There is no second list of them: a new field of the config is a new field of the form.
"""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lmoe_studio.errors import ConfigError
from lmoe_studio.plain_data import PlainDataError, read_yaml
from lmoe_studio.training.config import TrainingConfig

Kind = Literal["choice", "switch", "whole", "number", "words", "mapping", "text"]
Path = tuple[str, ...]
"""Name of a field, with those of the fields it lies in."""

ELSEWHERE = ("name", "skills", "out")
"""Fields that the form asks for elsewhere, or answers itself."""
OF_EXPERTS = ("rank", "alpha", "target_modules", "composition")
"""Fields that a bank to start from brings along."""

GROUPS: dict[str, tuple[str, ...]] = {
    "Base and experts": ("base", "quantize", "mode", "bank", *OF_EXPERTS),
    "Router": ("router",),
    "Steps and sequences": (
        "steps", "batch_size", "sequence_length", "gradient_accumulation",
        "gradient_checkpointing", "template", "precision", "device", "seed",
    ),
    "Learning rates": (
        "learning_rate", "router_learning_rate", "schedule", "warmup", "weight_decay",
        "max_grad_norm",
    ),
    "Losses of the routing": ("balance_loss", "z_loss", "skill_loss", "skill_loss_until"),
    "Held-out texts": (
        "held_out_share", "held_out_sequences", "eval_every", "eval_sequences", "early_stopping",
    ),
}  # fmt: skip
"""Where each field stands in the form; one that is named nowhere stands under "More"."""
MORE = "More"


@dataclass(frozen=True)
class Option:
    """One field of the form."""

    path: Path
    kind: Kind
    default: Any
    help: str
    """What the config says of it, and its bounds."""
    choices: tuple[str, ...] = ()
    may_be_empty: bool = False
    """Empty means that the run decides."""

    @property
    def key(self) -> str:
        """Its name in what a browser says."""
        return ".".join(self.path)

    @property
    def label(self) -> str:
        return " · ".join(name.replace("_", " ") for name in self.path)

    @property
    def group(self) -> str:
        return next((title for title, names in GROUPS.items() if self.path[0] in names), MORE)

    def shown(self, value: Any) -> Any:
        """A value of the config as the form shows it."""
        if value is None:
            return "" if self.kind in ("words", "mapping", "text") else None
        if self.kind == "words":
            return ", ".join(value)
        if self.kind == "mapping":
            text = yaml.safe_dump(dict(value), default_flow_style=True, width=10**6).strip()
            return text.removeprefix("{").removesuffix("}")
        return value

    def read(self, shown: Any) -> Any:
        """What the form shows as a value for the config. Raises ConfigError."""
        if shown is None or (isinstance(shown, str) and not shown.strip()):
            if self.may_be_empty:
                return None
            if self.default == {}:
                return {}
            raise ConfigError(
                f"{self.label}: it is empty; the usual is {self.shown(self.default)}."
            )
        if self.kind == "words":
            return [word for word in str(shown).replace(",", " ").split() if word]
        if self.kind == "mapping":
            return self._mapping(str(shown))
        if self.kind == "text":
            return str(shown).strip()
        return shown

    def _mapping(self, text: str) -> dict[str, Any]:
        try:
            text = text.strip()
            values = read_yaml(text if text.startswith("{") else "{" + text + "}")
        except PlainDataError:
            values = None
        if not isinstance(values, dict):
            raise ConfigError(
                f"{self.label}: expected `name: value, name: value`, got {text[:80]!r}."
            )
        return values


@cache
def training_options() -> tuple[Option, ...]:
    """All fields of the form, group by group."""
    found = tuple(_options(TrainingConfig, ()))
    order = [*GROUPS, MORE]
    return tuple(sorted(found, key=lambda option: order.index(option.group)))


def option_values(shown: Mapping[str, Any]) -> dict[str, Any]:
    """What the form shows, by key, as values for TrainingConfig. Raises ConfigError.

    What is missing is at its default. A bank to start from brings the options of its experts along,
    so those of the form are left out.
    """
    values: dict[str, Any] = {}
    for option in training_options():
        place = values
        for name in option.path[:-1]:
            place = place.setdefault(name, {})
        each = shown.get(option.key, option.shown(option.default))
        place[option.path[-1]] = option.read(each)
    if values.get("bank"):
        return {name: value for name, value in values.items() if name not in OF_EXPERTS}
    return values


def read_options(value: object) -> tuple[str, dict[str, Any]]:
    """The bank's name and the options' values from what a browser says. Raises ConfigError."""
    said = value if isinstance(value, dict) else {}
    name, shown = said.get("name"), said.get("values")
    values = option_values(shown if isinstance(shown, dict) else {})
    return name if isinstance(name, str) else "", values


def shown_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the form shows for a config's values, by key; what is missing there is at its default."""
    return {option.key: option.shown(_look_up(config, option)) for option in training_options()}


def _look_up(values: Mapping[str, Any], option: Option) -> Any:
    place: Any = values
    for name in option.path:
        if not isinstance(place, Mapping) or name not in place:
            return option.default
        place = place[name]
    return place


def _options(config: type[BaseModel], path: Path) -> Iterator[Option]:
    for name, field in config.model_fields.items():
        if not path and name in ELSEWHERE:
            continue
        kind, choices, may_be_empty = _kind(field.annotation)
        if isinstance(kind, type):
            yield from _options(kind, (*path, name))
            continue
        default = field.get_default(call_default_factory=True)
        yield Option((*path, name), kind, default, _help(field), choices, may_be_empty)


def _kind(annotation: Any) -> tuple[Any, tuple[str, ...], bool]:
    """Kind of a field's type, or the config it holds; its choices; whether it may be None."""
    may_be_empty = False
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [one for one in get_args(annotation) if one is not type(None)]
        may_be_empty = len(inner) < len(get_args(annotation))
        annotation = inner[0]
    origin = get_origin(annotation) or annotation
    if origin is Literal:
        return "choice", tuple(map(str, get_args(annotation))), may_be_empty
    if isinstance(origin, type) and issubclass(origin, BaseModel):
        # One that need not be there is one field, as several would always say that it is.
        return "mapping" if may_be_empty else origin, (), may_be_empty
    kinds: dict[Any, Kind] = {
        bool: "switch", int: "whole", float: "number", tuple: "words", dict: "mapping", str: "text",
    }  # fmt: skip
    return kinds[origin], (), may_be_empty


_BOUNDS = {
    annotated_types.Ge: ("ge", "{} or more"),
    annotated_types.Gt: ("gt", "above {}"),
    annotated_types.Le: ("le", "at most {}"),
    annotated_types.Lt: ("lt", "below {}"),
}


def _help(field: FieldInfo) -> str:
    bounds = [
        words.format(f"{getattr(bound, name):,}")
        for bound in field.metadata
        for kind, (name, words) in _BOUNDS.items()
        if isinstance(bound, kind)
    ]
    told = ", ".join(bounds)
    description = (field.description or "").replace("`", "")
    return f"{description} {told[:1].upper() + told[1:] + '.' if told else ''}".strip()
