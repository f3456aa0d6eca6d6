"""LoraFactors and LoraAdapter: one LoRA, as tensors with names; nothing of files or models."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LoraFactors:
    """The update of one linear layer: `scale · b @ a`, to be added to its weight.

    Of a weight that holds one matrix for each of the base model's own experts, as many updates.
    """

    a: Float[Tensor, "*fused rank d_in"]
    b: Float[Tensor, "*fused d_out rank"]
    scale: float
    """alpha / rank; alpha / sqrt(rank) for rank-stabilised LoRA (arXiv 2312.03732)."""

    @property
    def rank(self) -> int:
        return self.a.shape[-2]

    @property
    def d_in(self) -> int:
        return self.a.shape[-1]

    @property
    def d_out(self) -> int:
        return self.b.shape[-2]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight: `(d_out, d_in)`, or `(fused, d_out, d_in)`."""
        return *self.a.shape[:-2], self.d_out, self.d_in

    @property
    def update_norm(self) -> float:
        """Frobenius norm of the update, without forming it: `‖BA‖² = tr((BᵀB)(AAᵀ))`."""
        a, b = self.a.double(), self.b.double()
        square = ((b.mT @ b) * (a @ a.mT)).sum().clamp_min(0)
        return self.scale * math.sqrt(float(square))


@dataclass(frozen=True, eq=False)
class LoraAdapter:
    """One adapter: its factors by the path of the base model's linear layer they belong to."""

    factors: dict[str, LoraFactors]
    """For example `{"model.layers.0.self_attn.q_proj": LoraFactors(…)}`."""
    base: str | None = None
    """The base model that the adapter names, if it names one."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """The different ranks that occur, ascending."""
        return tuple(sorted({factor.rank for factor in self.factors.values()}))

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(f.a.shape) + math.prod(f.b.shape) for f in self.factors.values())


def from_peft(
    a: Float[Tensor, "fused_rank d_in"],
    b: Float[Tensor, "d_out rank_fused"],
    scale: float,
    fused: int,
) -> LoraFactors:
    """Factors of fused experts from PEFT's two matrices.

    `a` has the ranks of one expert after the other, `b` those of all experts for one rank after the other.
    """
    return LoraFactors(
        a.unflatten(0, (fused, -1)).contiguous(),
        b.unflatten(1, (-1, fused)).permute(2, 0, 1).contiguous(),
        scale,
    )


def to_peft(factors: LoraFactors) -> tuple[Tensor, Tensor]:
    """`a` and `b` as PEFT has them, two matrices of any factors."""
    if factors.a.ndim == 2:
        return factors.a, factors.b
    return factors.a.flatten(0, 1), factors.b.permute(1, 2, 0).flatten(1)
