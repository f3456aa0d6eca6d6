"""Blend search: gradient steps on one weight an expert, from a few example texts.

All layers and tokens share the weights, so the result is a plan that can be merged.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.tracing.batches import batches_of_like_length, padded

LOWEST, HIGHEST = -1.0, 4.0
"""What a plan may pin."""
_PASS = 1024  # tokens of one pass with gradients: bounds their memory


@dataclass(frozen=True)
class FoundBlend:
    """The best blend that the search came across."""

    weights: dict[str, float]
    loss: float
    """Nats a token on the examples."""
    losses: tuple[float, ...]
    """Of each blend on the way, the uniform one or the given start first."""

    @property
    def plan(self) -> RoutingPlan:
        """The blend for every token and layer."""
        return RoutingPlan([Override.pin(self.weights, renormalise=False)])


def search_blend(
    model: MixtureModel,
    sequences: Sequence[Sequence[int]],
    *,
    steps: int = 20,
    rate: float = 0.1,
    start: Mapping[str, float] | None = None,
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> FoundBlend:
    """Find the static blend under which some texts are likeliest.

    Adam with a rate that falls to 0; weights stay within what a plan may pin and need not sum to 1.

    Args:
        model: the routed model; its parameters are left alone.
        sequences: token ids of the examples, of two tokens or more.
        steps: how many blends to try.
        rate: how far a weight moves in the first step.
        start: where to begin, weight by expert; None is the uniform blend.
        on_step: hears each step, from 1, and its loss.
    """
    names = model.bank.expert_names
    begin = start or dict.fromkeys(names, 1 / len(names))
    weights = torch.tensor([float(begin.get(name, 0)) for name in names])
    adam = torch.optim.Adam([weights], lr=rate)
    tried = list[tuple[float, list[float]]]()
    for step in range(steps):
        loss, weights.grad = blend_gradient(model, sequences, weights)
        tried.append((loss, weights.tolist()))
        on_step(step + 1, loss)
        adam.param_groups[0]["lr"] = rate * (1 - step / steps)
        adam.step()
        weights.clamp_(LOWEST, HIGHEST)
    best = min(tried)
    return FoundBlend(
        dict(zip(names, best[1], strict=True)), best[0], tuple(loss for loss, _ in tried)
    )


@torch.enable_grad()
def blend_gradient(
    model: MixtureModel, sequences: Sequence[Sequence[int]], weights: Float[Tensor, " expert"]
) -> tuple[float, Float[Tensor, " expert"]]:
    """Mean loss of the texts under a static blend, in nats a token, and its gradient."""
    device = next(model.parameters()).device
    blend = weights.detach().to(device).requires_grad_()
    tokens = sum(len(sequence) - 1 for sequence in sequences)
    total, gradient = 0.0, torch.zeros_like(blend)
    for batch in batches_of_like_length(sequences, len, _PASS):
        ids, mask = padded(batch)
        ids = ids.to(device)
        shape = (*ids.shape, len(model.sites), len(blend))
        output = model(
            ids, None if mask is None else mask.to(device), routing_weights=blend.expand(shape)
        )
        targets = ids[:, 1:]
        if mask is not None:
            targets = targets.masked_fill(mask[:, 1:].to(device) == 0, -100)
        logits = output.logits[:, :-1].flatten(0, 1).float()
        loss = F.cross_entropy(logits, targets.flatten(), reduction="sum") / tokens
        total += float(loss.detach())
        gradient += torch.autograd.grad(loss, blend)[0]
    return total, gradient.to(weights.device)
