"""How far a router is from another that it is to repeat."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lmoe_studio.routing.losses import token_mean


def distillation_loss(
    logits: Float[Tensor, "batch seq #site expert"],
    teacher: Float[Tensor, "batch seq site expert"],
    mask: Bool[Tensor, "batch seq"],
) -> Float[Tensor, ""]:
    """Mean over tokens and sites of `KL(teacher ‖ softmax(logits))`.

    Read-ME (arXiv 2410.19123) distils how well masks of neurons cover a token's activations; here the
    teacher is a bank's learned router.

    Args:
        logits: the student's, of each site or one for all.
        teacher: probabilities, which sum to 1.
        mask: False for padding.
    """
    log = logits.log_softmax(dim=-1).expand_as(teacher)
    gap = F.kl_div(log, teacher, reduction="none").sum(dim=-1, keepdim=True)
    return token_mean(gap, mask).mean()


def agreement(
    logits: Float[Tensor, "batch seq #site expert"],
    teacher: Float[Tensor, "batch seq site expert"],
    mask: Bool[Tensor, "batch seq"],
) -> Float[Tensor, " site"]:
    """Share of tokens for which both have the same first choice, site by site."""
    same = logits.argmax(dim=-1) == teacher.argmax(dim=-1)
    return token_mean(same.to(teacher.dtype)[..., None], mask)[:, 0]
