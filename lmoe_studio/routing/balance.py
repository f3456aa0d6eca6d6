"""Balance among some experts only: those of a token type, or of a level of a tree."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lmoe_studio.routing.losses import load_balancing_loss


class BalanceGroup(NamedTuple):
    """Experts that are to be used evenly, by some tokens."""

    experts: Int[Tensor, " some"] | slice
    tokens: Bool[Tensor, "batch seq"]


def group_balance(
    probs: Float[Tensor, "batch seq site expert"],
    groups: Sequence[BalanceGroup],
    loads: Sequence[Float[Tensor, "site _"]] | None = None,
) -> Float[Tensor, " group"]:
    """`|E| Σ_{i ∈ E} f_i P_i` of each group, mean over sites: 1 when balanced, |E| when collapsed.

    By type (MoIIE, arXiv 2508.09779) f and P are over that type's tokens and the experts that it
    allows; by level (S'MoRE, arXiv 2504.06426) over the nodes of that level. Both papers count all
    choices of a token, which makes k, or the fan-out, of a balanced 1; here f counts the first, as
    in `load_balancing_loss`. A group without tokens gives 0.

    Args:
        probs: the routers' probabilities, of which a group's sum to 1 on its tokens.
        groups: which experts, and which tokens.
        loads: f of each group, where it is known over more tokens than these.
    """
    known = loads or [None] * len(groups)
    return torch.stack(
        [
            load_balancing_loss(probs[..., group.experts], group.tokens, load)
            for group, load in zip(groups, known, strict=True)
        ]
    )
