"""LoRABankLinear: a linear layer of the base model with the LoRA of every expert beside it.

The experts lie side by side along the rank axis, so that a layer costs what one LoRA of the
summed rank costs: no loop over experts, no tensor with an expert axis as wide as the output.
Where the routing weights come from is not known here: the layer asks `current.mixing`.
"""

import threading
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lmoe_studio.config import Composition
from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.lora import LoraFactors

RankLayout = tuple[tuple[int, float], ...]
"""(rank, scale) of each expert in one linear layer; rank 0 where the expert leaves it alone."""


class Mixing(Protocol):
    """What a bank layer asks of the routed forward pass around it."""

    def rank_weights(
        self, layer: "LoRABankLinear", x: Float[Tensor, "batch seq d_in"]
    ) -> Float[Tensor, "batch seq rank"] | None:
        """The routing weight of each rank's expert; None leaves the base layer alone."""
        ...

    def fresh(self) -> "Mixing":
        """The same weights for a recomputation, which must repeat every step."""
        ...

    def observe(self, layer: "LoRABankLinear", mixed: Float[Tensor, "batch seq rank"]) -> None:
        """Hears what is about to be multiplied by `lora_b`."""
        ...


class CurrentMixing(threading.local):
    """The mixing in force in this thread; None outside a routed forward pass."""

    mixing: Mixing | None = None


class LoRABankLinear(nn.Module):
    """`y = W0 x + Σ_i w_i s_i B_i A_i x`, or the same with averaged factors.

    Composition `output` averages the experts' updates; `factor` averages their factors,
    `(Σ_i w_i s_i B_i)(Σ_j w_j A_j) x`, re-associated so that no weight matrix is built per token.
    """

    def __init__(
        self,
        base: nn.Module,
        factors: Sequence[LoraFactors | None],
        *,
        name: str,
        composition: Composition,
        current: CurrentMixing,
    ) -> None:
        """Stack the experts' factors beside `base`.

        Args:
            base: the linear layer; only ever called, so a quantised one will do.
            factors: one entry an expert; None where the expert has no update here.
            name: path of the layer in the base model.
            composition: see the class.
            current: where the layer finds the routing weights of the running forward pass.

        Raises:
            AdapterError: composition `factor` and experts of different ranks.
        """
        super().__init__()
        present = [factor for factor in factors if factor is not None]
        if composition == "factor" and len({factor.rank for factor in present}) > 1:
            ranks = sorted({factor.rank for factor in present})
            raise AdapterError(
                f"Composition 'factor' averages the factors and so needs experts of one rank, but "
                f"{name} has ranks {', '.join(map(str, ranks))}; use composition 'output'."
            )
        self.base = base
        self.name = name
        self.composition = composition
        self.layout: RankLayout = tuple((f.rank, f.scale) if f else (0, 0.0) for f in factors)
        self.lora_a = nn.Parameter(torch.cat([factor.a for factor in present], dim=0))
        self.lora_b = nn.Parameter(torch.cat([factor.b for factor in present], dim=1))
        ranks = torch.tensor([rank for rank, _ in self.layout])
        experts = torch.arange(len(factors))
        self.register_buffer("expert_of_rank", experts.repeat_interleave(ranks), persistent=False)
        scales = torch.tensor([scale for _, scale in self.layout])
        self.register_buffer("scale_of_rank", scales.repeat_interleave(ranks), persistent=False)
        self.expert_of_rank: Tensor
        self.scale_of_rank: Tensor
        self._current = current

    def forward(self, x: Float[Tensor, "batch seq d_in"]) -> Float[Tensor, "batch seq d_out"]:
        y = self.base(x)
        mixing = self._current.mixing
        weights = mixing.rank_weights(self, x) if mixing else None
        if mixing is None or weights is None:
            return y
        mixed = self.mix(x, weights)
        mixing.observe(self, mixed)
        return y + F.linear(mixed, self.lora_b).to(y.dtype)

    def mix(
        self,
        x: Float[Tensor, "batch seq d_in"],
        weights: Float[Tensor, "batch seq rank"],
        composition: Composition | None = None,
    ) -> Float[Tensor, "batch seq rank"]:
        """What `lora_b` is to be applied to, experts side by side, in this or another composition."""
        z = F.linear(x.to(self.lora_a.dtype), self.lora_a)
        weights = weights.to(z.dtype)
        if (composition or self.composition) == "factor":
            each = (z * weights).unflatten(-1, (-1, self._common_rank))
            shared = each.sum(dim=-2, keepdim=True)  # Σ_j w_j A_j x, of one expert's rank
            z = shared.expand_as(each).flatten(-2)
        return z * (weights * self.scale_of_rank.to(z.dtype))

    def expand(self, weights: Float[Tensor, "*batch expert"]) -> Float[Tensor, "*batch rank"]:
        """Repeat each expert's weight over its ranks."""
        return weights[..., self.expert_of_rank]

    def update_norms(
        self, mixed: Float[Tensor, "batch seq rank"]
    ) -> Float[Tensor, "batch seq expert"]:
        """Squared norm of each expert's share of the update, `‖B_i mixed_i‖²`, in float32.

        Uses `‖B v‖² = vᵀ (BᵀB) v`, so that no `[batch, seq, expert, d_out]` tensor is built.
        """
        b = self.lora_b.detach().float()
        own = self.expert_of_rank[:, None] == self.expert_of_rank[None, :]
        gram = (b.T @ b) * own
        mixed = mixed.detach().float()
        squares = (mixed @ gram) * mixed
        norms = squares.new_zeros(*squares.shape[:-1], len(self.layout))
        return norms.index_add_(-1, self.expert_of_rank, squares).clamp_min_(0)

    def split(self) -> list[LoraFactors | None]:
        """The experts' factors again, in order, as views of the stacked parameters."""
        ranks = [rank for rank, _ in self.layout]
        parts = zip(
            self.lora_a.detach().split(ranks, 0), self.lora_b.detach().split(ranks, 1), strict=True
        )
        return [
            LoraFactors(a, b, scale) if rank else None
            for (a, b), (rank, scale) in zip(parts, self.layout, strict=True)
        ]

    def rank_weights(
        self, x: Float[Tensor, "batch seq d_in"]
    ) -> Float[Tensor, "batch seq rank"] | None:
        """The weights in force in this thread; None where the base layer is alone."""
        mixing = self._current.mixing
        return mixing.rank_weights(self, x) if mixing else None

    @property
    def _common_rank(self) -> int:
        return max(rank for rank, _ in self.layout)
