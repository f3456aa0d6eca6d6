"""Routers that look at nothing: uniform weights, and a fixed blend."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lmoe_studio.config import RouterSettings
from lmoe_studio.routing.router import Router, RouterOutput, TokenBatch


class UniformRouter(Router):
    """Every expert scores the same."""

    def __init__(self, settings: RouterSettings, num_experts: int) -> None:
        super().__init__(settings)
        self.num_experts = num_experts

    @classmethod
    def build(
        cls,
        settings: RouterSettings,
        *,
        experts: tuple[str, ...],
        d_in: int,
        state: Mapping[str, Tensor],
    ) -> "UniformRouter":
        return cls(settings, len(experts))

    def score(
        self, hidden: Float[Tensor, "batch seq d_in"], tokens: TokenBatch
    ) -> Float[Tensor, "batch seq expert"]:
        return hidden.new_zeros(*hidden.shape[:-1], self.num_experts)


class BlendRouter(Router):
    """The same weights for every token; they need not sum to 1 and may be negative."""

    def __init__(self, settings: RouterSettings, weights: Tensor) -> None:
        super().__init__(settings)
        self.register_buffer("weights", weights)
        self.weights: Tensor

    @classmethod
    def build(
        cls,
        settings: RouterSettings,
        *,
        experts: tuple[str, ...],
        d_in: int,
        state: Mapping[str, Tensor],
    ) -> "BlendRouter":
        blend = settings.blend or {}
        return cls(settings, torch.tensor([float(blend.get(name, 0)) for name in experts]))

    def forward(self, hidden: Float[Tensor, "batch seq d_in"], tokens: TokenBatch) -> RouterOutput:
        weights = self.weights.expand(*hidden.shape[:-1], -1)
        return RouterOutput(weights.clamp_min(1e-9).log(), weights, weights)
