"""From a router's logits to weights: pure functions, in the order in which they are applied.

    z → z / temperature → mask → activation → threshold → top-k → renormalise

Whatever comes in keeps its type: float64 in, float64 out.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Activation = Literal["softmax", "sigmoid", "identity"]
ThresholdRule = Literal["keep", "margin"]
"""What a weight that reaches its threshold becomes: itself, or what it has above it."""


def activated(
    logits: Float[Tensor, "*batch expert"],
    activation: Activation = "softmax",
    temperature: float = 1.0,
    allowed: Bool[Tensor, "*#batch expert"] | None = None,
) -> Float[Tensor, "*batch expert"]:
    """What a router makes of its logits before it leaves any out.

    A softmax sums to 1, sigmoids need not, and `identity` (arXiv 2402.00433) may be negative.

    Args:
        logits: z; finite, also those of experts that are not allowed.
        activation: of z / temperature.
        temperature: above 1 evens out.
        allowed: experts that may be used, at least one a token; the others get exactly 0, and a
            softmax is over the allowed ones. None allows all.
    """
    scaled = logits if temperature == 1 else logits / temperature
    match activation:
        case "softmax":
            masked = scaled if allowed is None else scaled.masked_fill(~allowed, -torch.inf)
            return masked.softmax(dim=-1)
        case "sigmoid":
            probs = scaled.sigmoid()
        case "identity":
            probs = scaled
    return probs if allowed is None else probs.masked_fill(~allowed, 0)


def even_logit(activation: Activation, experts: int) -> float:
    """The logit that gives each of several experts the same weight, where a new router starts."""
    return 1 / experts if activation == "identity" else 0.0


def learned_threshold(
    hidden: Float[Tensor, "*batch d_in"],
    weight: Float[Tensor, "1 d_in"],
    bias: Float[Tensor, " 1"],
    limit: float,
) -> Float[Tensor, "*batch 1"]:
    """`τ = limit · sigmoid(v · h + c)`: each token's own (MoA, arXiv 2506.05928)."""
    return limit * F.linear(hidden, weight, bias).sigmoid()


def above_threshold(
    probs: Float[Tensor, "*batch expert"],
    threshold: Float[Tensor, "*#batch #expert"] | float,
    rule: ThresholdRule = "keep",
) -> Float[Tensor, "*batch expert"]:
    """Zero what does not reach its threshold (MoA, arXiv 2506.05928, "sparse").

    With p the probabilities and τ the threshold, `keep` gives `p · 1[p ≥ τ]` and `margin` gives
    `max(p − τ, 0)`. The published threshold is learned in name only: it enters nothing but the
    comparison, whose gradient is none. Here `keep` has the published value and the gradient of the
    margin (a straight-through estimate), so that τ learns.
    """
    margin = (probs - threshold).clamp_min(0)
    if rule == "margin":
        return margin
    kept = torch.where(probs >= threshold, probs, torch.zeros_like(probs)).detach()
    return kept + (margin - margin.detach())  # the bracket is exactly 0


def largest(
    weights: Float[Tensor, "*batch expert"],
    count: int | None,
    *,
    renormalise: bool = True,
    signed: bool = False,
) -> Float[Tensor, "*batch expert"]:
    """Zero all but the `count` largest.

    Args:
        weights: before.
        count: None, or one that is no smaller than their number, keeps all.
        renormalise: scale the kept ones so that they sum as all did before.
        signed: there may be negative weights: then sizes are compared and summed.
    """
    if count is None or count >= weights.shape[-1]:
        return weights
    sizes = weights.abs() if signed else weights
    top = sizes.topk(count, dim=-1)
    values = weights.gather(-1, top.indices) if signed else top.values
    kept = torch.zeros_like(weights).scatter(-1, top.indices, values)
    if not renormalise:
        return kept
    left = top.values.sum(dim=-1, keepdim=True) if signed else kept.sum(dim=-1, keepdim=True)
    left = left.clamp_min(torch.finfo(kept.dtype).tiny)  # sigmoids vanish
    return kept * (sizes.sum(dim=-1, keepdim=True) / left)
