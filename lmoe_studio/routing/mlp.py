"""A router with one hidden layer, in the two forms that were published."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def relu_logits(
    hidden: Float[Tensor, "*batch d_in"],
    w1: Float[Tensor, "width d_in"],
    b1: Float[Tensor, " width"],
    w2: Float[Tensor, "expert width"],
    b2: Float[Tensor, " expert"],
) -> Float[Tensor, "*batch expert"]:
    """`W2 relu(W1 h + b1) + b2` (WEMoE, arXiv 2402.00433)."""
    return F.linear(F.relu(F.linear(hidden, w1, b1)), w2, b2)


def swiglu_logits(
    hidden: Float[Tensor, "*batch d_in"],
    w1: Float[Tensor, "width d_in"],
    b1: Float[Tensor, " width"],
    w3: Float[Tensor, "width d_in"],
    b3: Float[Tensor, " width"],
    w2: Float[Tensor, "expert width"],
    b2: Float[Tensor, " expert"],
) -> Float[Tensor, "*batch expert"]:
    """`W2 (silu(W1 h + b1) ∘ (W3 h + b3)) + b2` (MoA, arXiv 2506.05928)."""
    inner = F.silu(F.linear(hidden, w1, b1)) * F.linear(hidden, w3, b3)
    return F.linear(inner, w2, b2)
