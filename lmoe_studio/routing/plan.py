"""RoutingPlan: what a person asks of the routing, as plain data.

An ordered list of overrides, applied top to bottom; the empty plan leaves the router alone.
`apply.py` turns a plan into weights.
"""

import json
from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lmoe_studio.config import Config
from lmoe_studio.errors import PlanError

Operation = Literal["pin", "solo", "ban", "boost", "uniform", "bypass"]
TokenScope = Literal["all", "prompt", "generated"] | tuple[int, ...]


class Override(Config):
    """One instruction: where it holds, what it does there, and how strongly.

    Operations: `pin` sets the weights to `weights`; `solo` gives one expert weight 1; `ban` takes
    experts out; `boost` multiplies their weights by `weights`; `uniform` gives all the same
    weight; `bypass` uses no expert at all, which is the base model exactly.
    """

    operation: Operation
    weights: dict[str, float] = Field(default_factory=dict, description="By expert's name.")
    layers: tuple[int, ...] | None = Field(
        default=None, description="Decoder blocks; none means all."
    )
    tokens: TokenScope = Field(default="all", description="all, prompt, generated, or positions.")
    strength: float = Field(
        default=1.0, ge=0, le=1, description="0 changes nothing, 1 all the way."
    )
    renormalise: bool = Field(
        default=True, description="After ban and boost, let the weights sum as before."
    )

    @classmethod
    def pin(cls, weights: dict[str, float], **scope: object) -> Self:
        """Set the weights, whatever they sum to; experts not named get 0."""
        return cls._make(operation="pin", weights=weights, **scope)

    @classmethod
    def blend(cls, weights: dict[str, float], **scope: object) -> Self:
        """Mix towards these weights by `strength`; the same as `pin` at strength 1."""
        return cls.pin(weights, **scope)

    @classmethod
    def solo(cls, expert: str, **scope: object) -> Self:
        """Only this expert, with weight 1."""
        return cls._make(operation="solo", weights={expert: 1.0}, **scope)

    @classmethod
    def ban(cls, *experts: str, **scope: object) -> Self:
        """Without these experts; the others take their share."""
        return cls._make(operation="ban", weights=dict.fromkeys(experts, 0.0), **scope)

    @classmethod
    def boost(cls, factors: dict[str, float], **scope: object) -> Self:
        """Multiply these experts' weights."""
        return cls._make(operation="boost", weights=factors, **scope)

    @classmethod
    def uniform(cls, **scope: object) -> Self:
        """The same weight for every expert."""
        return cls._make(operation="uniform", **scope)

    @classmethod
    def bypass(cls, **scope: object) -> Self:
        """No experts: the base model."""
        return cls._make(operation="bypass", **scope)

    @classmethod
    def _make(cls, **values: object) -> Self:
        layers = values.get("layers")
        if isinstance(layers, int):
            values["layers"] = (layers,)
        elif isinstance(layers, Iterable):
            values["layers"] = tuple(layers)
        return cls.parse(values, source=f"override {values['operation']}")

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.operation in ("uniform", "bypass") and self.weights:
            raise ValueError(f"'{self.operation}' takes no weights")
        if self.operation not in ("uniform", "bypass") and not self.weights:
            raise ValueError(f"'{self.operation}' needs at least one expert in `weights`")
        if self.operation == "solo" and list(self.weights.values()) != [1.0]:
            raise ValueError("'solo' takes exactly one expert, with weight 1")
        if any(not -4 <= weight <= 4 for weight in self.weights.values()):  # catches NaN too
            raise ValueError(f"weights lie between -4 and 4, got {self.weights}")
        if self.layers == () or self.tokens == ():
            raise ValueError("the scope is empty; leave it out to mean all")
        return self


class RoutingPlan(Config):
    """Overrides, applied top to bottom."""

    version: Literal[1] = 1
    overrides: tuple[Override, ...] = ()

    def __init__(self, overrides: Iterable[Override] = (), **values: object) -> None:
        data: dict[str, Any] = {"overrides": tuple(overrides), **values}
        super().__init__(**data)

    def __bool__(self) -> bool:
        return any(override.strength > 0 for override in self.overrides)

    def to_json(self) -> str:
        return self.model_dump_json(exclude_defaults=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises PlanError for text that is no JSON; ConfigError for a plan that is not sound."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise PlanError(
                f"The plan is not JSON (line {error.lineno}, column {error.colno}: {error.msg})."
            ) from None
        return cls.parse(values, source="plan")
