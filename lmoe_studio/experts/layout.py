"""RankLayout: which rank of a bank layer belongs to which expert."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lmoe_studio.config import Composition
from lmoe_studio.experts.lora import LoraFactors


class RankWeights(NamedTuple):
    """Routing weights, one a rank."""

    scaled: Float[Tensor, "token rank"]
    """Times the scale of each expert."""
    plain: Float[Tensor, "token rank"] | None
    """Only composition `factor` needs them too."""


class RankLayout(nn.Module):
    """The ranks of a bank layer's experts, side by side, and the scales of their updates.

    One object serves all layers that look alike, so that a block expands its weights once; a
    module, so that it goes where the model goes.
    """

    def __init__(self, factors: Sequence[LoraFactors | None]) -> None:
        """Of a layer with these factors, one entry an expert; None where one leaves it alone."""
        super().__init__()
        self.ranks = tuple(factor.rank if factor else 0 for factor in factors)
        self.scales = tuple(factor.scale if factor else 0.0 for factor in factors)
        owner = torch.eye(len(factors)).repeat_interleave(torch.tensor(self.ranks), dim=0)
        self.register_buffer("owner", owner, persistent=False)
        self.register_buffer("scaled_owner", owner * torch.tensor(self.scales), persistent=False)
        self.owner: Float[Tensor, "rank expert"]
        """1 where a rank is an expert's, else 0."""
        self.scaled_owner: Float[Tensor, "rank expert"]

    @property
    def total(self) -> int:
        """Ranks of all experts together."""
        return sum(self.ranks)

    def looks_like(self, other: "RankLayout") -> bool:
        """Whether one object would do for both."""
        return (self.ranks, self.scales) == (other.ranks, other.scales)

    def expand(self, weights: Float[Tensor, "row expert"], composition: Composition) -> RankWeights:
        """Give each rank its expert's weight.

        A product with a matrix of one number a row: exact, and one operation in both directions,
        where an index would scatter in the backward pass.
        """
        scaled_owner = self.scaled_owner
        flat = weights.to(scaled_owner.dtype)
        plain = F.linear(flat, self.owner) if composition == "factor" else None
        return RankWeights(F.linear(flat, scaled_owner), plain)

    def mix(
        self, z: Float[Tensor, "token *layer rank"], weights: RankWeights
    ) -> Float[Tensor, "token *layer rank"]:
        """What `lora_b` is to be applied to, from what `lora_a` gave, experts side by side.

        `w_i s_i A_i x` for each expert i; with composition `factor`, `w_i s_i Σ_j w_j A_j x`.
        """
        scaled, plain = weights
        if plain is None:
            return z * scaled
        rank = max(self.ranks)
        averaged = (z * plain).view(*z.shape[:-1], -1, rank).sum(dim=-2, keepdim=True)
        return (averaged * scaled.view(*scaled.shape[:-1], -1, rank)).view_as(z)
