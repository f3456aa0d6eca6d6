"""LinearRouter: a learned linear layer on normalised hidden states."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lmoe_studio.routing.router import Router, RouterSpec, TokenBatch


class LinearRouter(Router):
    """`z = W rms(h) + b`, trained with the experts.

    A new one starts at zero: uniform weights, so that training starts from an even blend.
    """

    learned = True

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        shape = len(spec.experts), spec.d_in
        self.weight = nn.Parameter(spec.state.get("weight", torch.zeros(shape)).float().clone())
        self.bias = nn.Parameter(spec.state.get("bias", torch.zeros(shape[0])).float().clone())

    @staticmethod
    def saved_shapes(num_experts: int, d_in: int | None) -> dict[str, tuple[int | None, ...]]:
        return {"weight": (num_experts, d_in), "bias": (num_experts,)}

    def score(
        self,
        hidden: Float[Tensor, "batch seq d_in"],
        shrink: Float[Tensor, "batch seq 1"],
        tokens: TokenBatch,
    ) -> Float[Tensor, "batch seq expert"]:
        return torch.addcmul(self.bias, F.linear(hidden, self.weight), shrink)
