"""Routers that look at nothing: uniform weights, and a fixed blend."""

import torch
from jaxtyping import Float
from torch import Tensor

from lmoe_studio.routing.router import Router, RouterOutput, RouterSpec, TokenBatch


class UniformRouter(Router):
    """Every expert scores the same."""

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        self.num_experts = len(spec.experts)

    def score(
        self,
        hidden: Float[Tensor, "batch seq d_in"],
        shrink: Float[Tensor, "batch seq 1"],
        tokens: TokenBatch,
    ) -> Float[Tensor, "batch seq expert"]:
        return hidden.new_zeros(*hidden.shape[:-1], self.num_experts)


class BlendRouter(Router):
    """The same weights for every token; they need not sum to 1 and may be negative."""

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        blend = spec.settings.blend or {}
        weights = torch.tensor([float(blend.get(name, 0)) for name in spec.experts])
        self.register_buffer("weights", weights)
        self.weights: Tensor

    def forward(self, hidden: Float[Tensor, "batch seq d_in"], tokens: TokenBatch) -> RouterOutput:
        weights = self.weights.expand(*hidden.shape[:-1], -1)
        return RouterOutput(weights.clamp_min(1e-9).log(), weights, weights)

    def gate(self, logits: Float[Tensor, "batch seq expert"]) -> Float[Tensor, "batch seq expert"]:
        """Changed logits share out the sum of the blend; a negative weight has no logit."""
        return logits.softmax(dim=-1) * self.weights.sum()
