"""RoutingPlan: what a person asks of the routing, as plain data.

An ordered list of overrides, each a scope (layers, tokens, experts), an operation and a strength;
the empty plan leaves the router alone. `apply.py` turns a plan into weights and says exactly how;
`check.py` holds a plan against a bank.
"""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lmoe_studio.errors import PlanError, kind_of
from lmoe_studio.plain_data import PlainDataError, read_json
from lmoe_studio.routing.plan_data import PlanData
from lmoe_studio.routing.scopes import (
    Places,
    RegexMatch,
    Span,
    Steps,
    TextMatch,
    TokenScope,
    not_a_truth,
)

VERSION = 1
Operation = Literal[
    "pin", "solo", "ban", "boost", "bias", "temperature", "top_k", "uniform", "bypass"
]
LOGIT_OPERATIONS = ("bias", "temperature")
"""Act on the router's logits, before it decides; the others act on its weights."""

_RANGES = {"pin": (-1, 4), "boost": (-1, 4), "bias": (-20, 20)}
_FIXED = {"solo": 1.0, "ban": 0.0, "uniform": 1.0}
"""The only weight that an operation takes: its experts are named, not weighed."""
_MAX_OVERRIDES = 256

_Number = Annotated[float, BeforeValidator(not_a_truth)]


__all__ = [
    "LOGIT_OPERATIONS",
    "Override",
    "RegexMatch",
    "RoutingPlan",
    "Span",
    "Steps",
    "TextMatch",
]


def _by_name(weights: Any) -> Any:
    return weights.to_dict() if hasattr(weights, "to_dict") else weights  # pandas


class Override(PlanData):
    """One instruction: where it holds, what it does there, and how strongly.

    | operation | what it makes of a token's routing |
    | --- | --- |
    | `pin` | the weights become `weights`, 0 for experts not named |
    | `solo` | one expert has weight 1, the others 0 |
    | `ban` | these experts have weight 0 |
    | `boost` | the experts' weights are multiplied by `weights` |
    | `bias` | `weights` are added to the router's logits |
    | `temperature` | the router's logits are divided by `value` |
    | `top_k` | only the `value` largest weights stay |
    | `uniform` | the named experts (none: all) share weight 1 evenly, the others have 0 |
    | `bypass` | no expert at all: the base model, exactly |
    """

    operation: Operation
    weights: Annotated[dict[str, _Number], BeforeValidator(_by_name)] = Field(
        default_factory=dict, description="By expert's name: a weight, a factor, or what to add."
    )
    value: _Number | None = Field(
        default=None, description="For temperature, the divisor; for top_k, how many."
    )
    layers: Places | None = Field(default=None, description="Decoder blocks; none means all.")
    tokens: TokenScope = Field(
        default="all", description="All, prompt, generated, positions, steps, text or regex."
    )
    strength: _Number = Field(
        default=1.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="How far towards the operation's result: 0 changes nothing, 1 all the way.",
    )
    renormalise: bool = Field(
        default=True,
        description="Scale pinned weights to sum to 1; after ban, boost and top_k, let the "
        "weights sum as before. Off: weights as they are, also negative ones.",
    )

    @classmethod
    def pin(cls, weights: dict[str, float], **scope: Any) -> Self:
        """Set the weights; experts not named get 0. They sum to 1 unless `renormalise=False`."""
        return cls._make(operation="pin", weights=weights, **scope)

    @classmethod
    def blend(cls, weights: dict[str, float], **scope: Any) -> Self:
        """Mix towards these weights by `strength`; the same as `pin` at strength 1."""
        return cls.pin(weights, **scope)

    @classmethod
    def solo(cls, expert: str, **scope: Any) -> Self:
        """Only this expert, with weight 1."""
        return cls._make(operation="solo", weights=_named_alike((expert,), 1.0), **scope)

    @classmethod
    def ban(cls, *experts: str, **scope: Any) -> Self:
        """Without these experts; the others take their share."""
        return cls._make(operation="ban", weights=_named_alike(experts, 0.0), **scope)

    @classmethod
    def boost(cls, factors: dict[str, float], **scope: Any) -> Self:
        """Multiply these experts' weights."""
        return cls._make(operation="boost", weights=factors, **scope)

    @classmethod
    def bias(cls, amounts: dict[str, float], **scope: Any) -> Self:
        """Add to the router's logits of these experts; the router then decides as usual."""
        return cls._make(operation="bias", weights=amounts, **scope)

    @classmethod
    def temperature(cls, value: float, **scope: Any) -> Self:
        """Divide the router's logits: below 1 it grows more decided, above 1 less."""
        return cls._make(operation="temperature", value=value, **scope)

    @classmethod
    def top_k(cls, value: int, **scope: Any) -> Self:
        """Keep the largest weights only."""
        return cls._make(operation="top_k", value=value, **scope)

    @classmethod
    def uniform(cls, *experts: str, **scope: Any) -> Self:
        """The same weight for these experts, or for all if none is named."""
        return cls._make(operation="uniform", weights=_named_alike(experts, 1.0), **scope)

    @classmethod
    def bypass(cls, **scope: Any) -> Self:
        """No experts: the base model."""
        return cls._make(operation="bypass", **scope)

    @classmethod
    def _make(cls, **values: Any) -> Self:
        return cls.parse(values, source=f"Override ({values['operation']})")

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        self._check_weights()
        self._check_value()
        for name, places in (("layers", self.layers), ("tokens", self.tokens)):
            if places == () or (isinstance(places, Steps) and places.steps == ()):
                raise ValueError(f"{name}: the scope is empty; leave it out to mean all")
        return self

    def _check_weights(self) -> None:
        operation, given = self.operation, list(self.weights.values())
        if operation in ("temperature", "top_k", "bypass"):
            if given:
                raise ValueError(f"'{operation}' takes no weights")
            return
        if not given and operation != "uniform":
            raise ValueError(f"'{operation}' needs at least one expert in `weights`")
        if operation == "solo" and len(given) > 1:
            raise ValueError("'solo' takes exactly one expert, with weight 1")
        if operation in _FIXED:
            fixed = _FIXED[operation]
            if any(weight != fixed for weight in given):
                raise ValueError(f"'{operation}' names its experts with weight {fixed:g}")
            return
        low, high = _RANGES[operation]
        for name, weight in self.weights.items():
            if not low <= weight <= high:  # true for NaN as well
                raise ValueError(f"weights lie between {low} and {high}, got {weight:g} for {name}")
        if operation == "pin" and not any(given):
            raise ValueError("all weights are zero; for the base model use bypass")
        if operation != "bias" and self.renormalise and min(given) < 0:
            raise ValueError(f"a negative weight needs renormalise off, got {min(given):g}")

    def _check_value(self) -> None:
        value = self.value
        if self.operation == "temperature":
            if value is None or not 0.01 <= value <= 100:
                raise ValueError(f"a temperature lies between 0.01 and 100, got {value}")
        elif self.operation == "top_k":
            if value is None or not value >= 1 or not float(value).is_integer():
                raise ValueError(f"top_k keeps a whole number of experts from 1 up, got {value}")
        elif value is not None:
            raise ValueError(f"'{self.operation}' takes no value")

    def __repr__(self) -> str:
        return f"Override.{self.operation}({', '.join([*self._arguments(), *self._scope()])})"

    __str__ = __repr__

    def _arguments(self) -> list[str]:
        if self.operation in _FIXED:
            return [repr(name) for name in self.weights]
        if self.value is not None:
            return [repr(int(self.value) if self.value.is_integer() else self.value)]
        return [repr(self.weights)] if self.weights else []

    def _scope(self) -> list[str]:
        parts = []
        for name in ("layers", "tokens", "strength", "renormalise"):
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                parts.append(f"{name}={_short(value)}")
        return parts


def _named_alike(experts: tuple[str, ...], weight: float) -> dict[str, float]:
    for name in experts:
        if not isinstance(name, str):
            raise PlanError(
                f"An expert's name is {kind_of(name)}; name experts one by one, as in "
                "Override.ban('sql', 'math')."
            )
    return dict.fromkeys(experts, weight)


def _short(value: object) -> str:
    """Consecutive numbers as a range."""
    if isinstance(value, tuple) and len(value) > 2 and value == (*range(value[0], value[-1] + 1),):
        return f"range({value[0]}, {value[-1] + 1})"
    return repr(value)


class RoutingPlan(PlanData):
    """Overrides, applied top to bottom."""

    overrides: tuple[Override, ...] = Field(default=(), max_length=_MAX_OVERRIDES)
    version: Literal[1] = VERSION

    if TYPE_CHECKING:

        def __init__(
            self, overrides: Iterable[Override] | Override = (), *, version: Literal[1] = VERSION
        ) -> None: ...

    @field_validator("overrides", mode="before")
    @classmethod
    def _listed(cls, overrides: Any) -> Any:
        if isinstance(overrides, Override):
            return (overrides,)
        is_list = isinstance(overrides, Iterable) and not isinstance(overrides, str | Mapping)
        return tuple(overrides) if is_list else overrides

    @classmethod
    def parse(cls, values: Any, *, source: str) -> Self:
        """Check plain values. Raises PlanError that names the override by number and operation."""
        version = values.get("version", VERSION) if isinstance(values, dict) else None
        if version is None:
            raise PlanError(
                f"{source}: expected an object with `overrides`, got {kind_of(values)}."
            )
        if version != VERSION:
            raise PlanError(
                f"{source}: it is of version {str(version)[:20]}, and this release reads version "
                f"{VERSION}; save it again with this release."
            )
        items = values.get("overrides", ())
        if isinstance(items, list | tuple):
            for number, item in enumerate(items, start=1):
                if not isinstance(item, Override):
                    Override.parse(item, source=f"{source}, override {number}{_named(item)}")
        return super().parse(values, source=source)

    def __bool__(self) -> bool:
        return any(override.strength > 0 for override in self.overrides)

    def __repr__(self) -> str:
        if len(self.overrides) < 2:
            return f"RoutingPlan([{', '.join(map(repr, self.overrides))}])"
        return "RoutingPlan([\n" + "".join(f"    {one!r},\n" for one in self.overrides) + "])"

    __str__ = __repr__

    def to_json(self) -> str:
        """One line; what is left at its default is left out."""
        overrides = [item.model_dump(mode="json", exclude_defaults=True) for item in self.overrides]
        values = {"version": self.version, "overrides": overrides}
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, *, source: str = "The plan") -> Self:
        """Raises PlanError for text that is no JSON, and for a plan that is not sound."""
        try:
            values = read_json(text.removeprefix("\ufeff"))  # which some editors put first
        except PlainDataError as error:
            where = f"line {error.line}, column {error.column}: " if error.line else ""
            raise PlanError(f"{source} is not JSON ({where}{error.reason}).") from None
        return cls.parse(values, source=source)


def _named(item: object) -> str:
    operation = item.get("operation") if isinstance(item, dict) else None
    return f" ({operation[:20]})" if isinstance(operation, str) else ""
