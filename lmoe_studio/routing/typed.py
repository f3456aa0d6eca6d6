"""A gate of its own for each type of token (MoIIE, arXiv 2508.09779)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def typed_logits(
    hidden: Float[Tensor, "*batch d_in"],
    types: Int[Tensor, "*batch"],
    weight: Float[Tensor, "type expert d_in"],
    bias: Float[Tensor, "type expert"],
) -> Float[Tensor, "*batch expert"]:
    """`z_t = W_{m(t)} h_t + b_{m(t)}`, with m(t) the token's type.

    All types' gates are computed, as there are few, and each token's own is taken. Which experts a
    type allows is the mask's to say (`gates.activated`): the original keeps only the rows that a type
    allows, by a list that fits four experts alone; here the sets are free, and there is a bias.
    """
    every = torch.einsum("...d,mnd->...mn", hidden, weight) + bias
    own = types.long()[..., None, None].expand(*types.shape, 1, weight.shape[1])
    return every.gather(-2, own).squeeze(-2)
