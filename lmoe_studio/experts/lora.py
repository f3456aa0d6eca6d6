"""LoraFactors and LoraAdapter: one LoRA, as tensors with names; nothing of files or models."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LoraFactors:
    """The update of one linear layer: `scale · b @ a`, to be added to its weight."""

    a: Float[Tensor, "rank d_in"]
    b: Float[Tensor, "d_out rank"]
    scale: float
    """alpha / rank; alpha / sqrt(rank) for rank-stabilised LoRA (arXiv 2312.03732)."""

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def d_in(self) -> int:
        return self.a.shape[1]

    @property
    def d_out(self) -> int:
        return self.b.shape[0]

    @property
    def update_norm(self) -> float:
        """Frobenius norm of the update, without forming it: `‖BA‖² = tr((BᵀB)(AAᵀ))`."""
        a, b = self.a.double(), self.b.double()
        square = ((b.T @ b) * (a @ a.T)).sum().clamp_min(0)
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
