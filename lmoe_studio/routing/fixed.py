"""Routers that look at nothing: uniform weights, and a fixed blend."""

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from lmoe_studio.config import Config, printable
from lmoe_studio.errors import ConfigError, did_you_mean
from lmoe_studio.routing.router import Notes, Reading, Router, RouterOutput, RouterSpec, Scores


class UniformRouter(Router):
    """Every expert scores the same."""

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        self.num_experts = len(spec.experts)

    def score(self, reading: Reading) -> Scores:
        return Scores(reading.hidden.new_zeros(*reading.hidden.shape[:-1], self.num_experts))


class Blend(Config):
    """What a blend router is told."""

    weights: dict[str, Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]] = Field(
        description="By expert; those not named get 0."
    )


class BlendRouter(Router):
    """The same weights for every token; they need not sum to 1 and may be negative."""

    Options = Blend

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        weights = [float(self.options.weights.get(name, 0)) for name in spec.experts]
        self.register_buffer("weights", torch.tensor(weights))
        self.weights: Tensor

    @classmethod
    def check_experts(cls, options: Blend, experts: tuple[str, ...]) -> None:
        for name in options.weights:
            if name not in experts:
                raise ConfigError(
                    f"The blend of the router: no expert '{printable(name)}'; {did_you_mean(name, experts)}"
                )

    def forward(self, reading: Reading) -> RouterOutput:
        weights = self.weights.expand(*reading.hidden.shape[:-1], -1)
        logits = weights.clamp_min(1e-9).log()
        return RouterOutput(logits, weights, weights, partial(self.gate, notes={}))

    def decide(self, logits: Tensor, notes: Notes) -> tuple[Tensor, Tensor]:
        """Changed logits share out the sum of the blend; a negative weight has no logit."""
        weights = logits.softmax(dim=-1) * self.weights.sum()
        return weights, weights
