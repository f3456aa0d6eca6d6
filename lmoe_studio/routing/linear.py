"""LinearRouter: a learned linear layer on normalised hidden states."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lmoe_studio.config import RouterSettings
from lmoe_studio.routing.router import Router, TokenBatch


class LinearRouter(Router):
    """`z = W rms(h) + b`, trained with the experts.

    A new one starts at zero: uniform weights, so that training starts from an even blend.
    """

    learned = True

    def __init__(self, settings: RouterSettings, weight: Tensor, bias: Tensor) -> None:
        super().__init__(settings)
        self.weight = nn.Parameter(weight.float())
        self.bias = nn.Parameter(bias.float())

    @classmethod
    def build(
        cls,
        settings: RouterSettings,
        *,
        experts: tuple[str, ...],
        d_in: int,
        state: Mapping[str, Tensor],
    ) -> "LinearRouter":
        weight = state.get("weight", torch.zeros(len(experts), d_in))
        return cls(settings, weight, state.get("bias", torch.zeros(len(experts))))

    def score(
        self, hidden: Float[Tensor, "batch seq d_in"], tokens: TokenBatch
    ) -> Float[Tensor, "batch seq expert"]:
        return F.linear(hidden, self.weight, self.bias)
