"""LinearRouter: a learned linear layer on normalised hidden states."""

import torch
import torch.nn.functional as F
from torch import nn

from lmoe_studio.routing.gates import even_logit
from lmoe_studio.routing.router import Reading, Router, RouterSpec, Scores
from lmoe_studio.routing.settings import RouterSettings


class LinearRouter(Router):
    """`z = W rms(h) + b`, trained with the experts.

    A new one scores all the same: uniform weights, so that training starts from an even blend.
    """

    learned = True

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        shape = len(spec.experts), spec.d_in
        even = even_logit(spec.settings.activation, shape[0])
        self.weight = nn.Parameter(spec.state.get("weight", torch.zeros(shape)).float().clone())
        self.bias = nn.Parameter(
            spec.state.get("bias", torch.full(shape[:1], even)).float().clone()
        )

    @classmethod
    def saved_shapes(
        cls,
        settings: RouterSettings,  # noqa: ARG003
        num_experts: int,
        d_in: int | None,
    ) -> dict[str, tuple[int | None, ...]]:
        return {"weight": (num_experts, d_in), "bias": (num_experts,)}

    def score(self, reading: Reading) -> Scores:
        scores = F.linear(reading.hidden, self.weight)
        return Scores(torch.addcmul(self.bias, scores, reading.shrink))
