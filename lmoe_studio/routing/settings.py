"""RouterSettings: how hidden states become routing weights, as a config says it. No torch here."""

from collections.abc import Callable
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from lmoe_studio.config import Config
from lmoe_studio.errors import ConfigError
from lmoe_studio.routing.presets import Preset, with_preset
from lmoe_studio.routing.registry import check_kind, checked_options

Scope = Literal["layer", "shared", "module", "tied"]

T = TypeVar("T")
LINEAR = "linear"
"""The usual kind, which takes every setting and no options."""

_SAID = {
    "layer": "per layer",
    "shared": "shared by all layers",
    "module": "per module",
    "tied": "one router in every layer",
}


class Threshold(Config):
    """Which experts a token does without (MoA, arXiv 2506.05928)."""

    limit: float = Field(
        default=0.5, gt=0, lt=1, description="What a probability must reach; if learned, at most."
    )
    learned: bool = Field(default=True, description="Each token has its own, up to the limit.")
    rule: Literal["keep", "margin"] = Field(
        default="keep", description="What reaches it stays as it is, or counts from there."
    )

    def __str__(self) -> str:
        learned = f"learned, at most {self.limit:g}" if self.learned else f"{self.limit:g}"
        return f"threshold {learned}" + (", margin" if self.rule == "margin" else "")


class RouterSettings(Config):
    """What every kind of router is told, and the options of its own kind."""

    preset: Preset | None = Field(
        default=None,
        exclude=True,
        description="A published mechanism by name, for all that is not said otherwise here; see "
        "docs/mechanisms.md.",
    )
    """Never there afterwards: it has become the other settings."""
    kind: str = Field(
        default=LINEAR,
        description="linear, mlp, typed, tree or pre (learned), knn, arrow, uniform or blend (fixed); "
        "see docs/mechanisms.md.",
    )
    scope: Scope = Field(
        default="layer",
        description="One router a decoder block; one for all, reading the embeddings (shared) or "
        "the states of each block (tied); or one for each target linear, reading that linear's "
        "input.",
    )
    activation: Literal["softmax", "sigmoid", "identity"] = Field(
        default="softmax",
        description="What makes weights of logits; with identity they are the weights.",
    )
    temperature: float = Field(default=1.0, ge=1e-6, le=1e6, allow_inf_nan=False)
    top_k: int | None = Field(default=None, ge=1, description="Keep the k largest; none keeps all.")
    renormalise: bool = Field(
        default=True, description="After top-k, let the kept weights sum as before."
    )
    threshold: Threshold | None = Field(
        default=None, description="Leave out experts whose probability does not reach it."
    )
    pool: Literal["token", "prefix", "prompt"] = Field(
        default="token",
        description="Route each token by its own scores, by their mean over the prompt so far, or by "
        "that over the whole prompt.",
    )
    layer_code: int = Field(
        default=0,
        ge=0,
        le=1024,
        multiple_of=2,
        description="Width of the layer's number that a tied router reads; 0 for none.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        validate_default=True,
        description="What this kind of router alone is told, such as the weights of a blend.",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_is_what_it_stands_for(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "preset" not in values:
            return values
        return _or_value_error(lambda: with_preset(values))

    @model_validator(mode="before")
    @classmethod
    def _blend_is_an_option(cls, values: Any) -> Any:
        """Before there were options, a blend's weights stood beside the kind."""
        if not isinstance(values, dict) or "blend" not in values:
            return values
        values = dict(values)
        weights = values.pop("blend")
        return values if weights is None else values | {"options": {"weights": weights}}

    @field_validator("options")
    @classmethod
    def _are_of_its_kind(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        kind = info.data.get("kind", LINEAR)
        if kind == LINEAR and not options:
            return options  # without a look at the kind, which would bring torch
        return _or_value_error(lambda: checked_options(kind, options))

    @model_validator(mode="after")
    def _fit_each_other(self) -> Self:
        if self.kind != LINEAR:
            _or_value_error(lambda: check_kind(self))
        if self.layer_code and self.scope != "tied":
            raise ValueError("a layer_code is for scope 'tied', where one router serves all layers")
        if self.threshold and self.activation == "identity":
            raise ValueError("a threshold is between 0 and 1, and weights by identity need not be")
        if self.learns_threshold and self.pool != "token":
            raise ValueError(
                "a learned threshold is each token's own, and a pooled router has one decision for "
                "many; set learned: false, or pool: token"
            )
        return self

    @property
    def learns_threshold(self) -> bool:
        return self.threshold is not None and self.threshold.learned

    def __str__(self) -> str:
        parts = [self.kind, _SAID[self.scope], self.activation]
        if self.temperature != 1:
            parts.append(f"temperature {self.temperature:g}")
        if self.threshold:
            parts.append(str(self.threshold))
        if self.pool != "token":
            parts.append("one decision a prompt" if self.pool == "prompt" else "mean so far")
        if self.top_k:
            parts.append(f"top {self.top_k}" + ("" if self.renormalise else ", not renormalised"))
        return ", ".join(parts)


def _or_value_error(check: Callable[[], T]) -> T:
    """What pydantic takes for a refusal."""
    try:
        return check()
    except ConfigError as error:
        raise ValueError(str(error).rstrip(".")) from None
