"""What training asks of the routing besides a good language model."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def load_balancing_loss(
    probs: Float[Tensor, "batch seq site expert"], mask: Bool[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """`N Σ_i f_i P_i`, mean over sites: 1 when balanced, N when one expert takes all.

    `f` is the share of tokens whose top choice is expert i and `P` its mean probability (Switch
    Transformer, arXiv 2101.03961, eq. 4). Padding is left out.
    """
    kept = probs[mask]  # [token, site, expert]
    count = kept.shape[-1]
    first = F.one_hot(kept.argmax(dim=-1), count).to(kept.dtype).mean(dim=0)
    return count * (first * kept.mean(dim=0)).sum(dim=-1).mean()


def router_z_loss(
    logits: Float[Tensor, "batch seq site expert"], mask: Bool[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Mean squared log-sum-exp of the logits, which keeps them small (arXiv 2202.08906, eq. 5)."""
    return logits[mask].logsumexp(dim=-1).square().mean()


def skill_loss(
    probs: Float[Tensor, "batch seq site expert"],
    skills: Int[Tensor, " batch"],
    mask: Bool[Tensor, "batch seq"],
) -> Float[Tensor, ""]:
    """Cross-entropy between routing probabilities and each example's skill, an expert's index.

    Rows with skill -1 have none and are left out.
    """
    kept = mask & (skills >= 0)[:, None]
    if not kept.any():
        return probs.new_zeros(())
    target = skills.clamp_min(0)[:, None].expand(mask.shape)[kept]
    chosen = probs[kept].gather(-1, target[:, None, None].expand(-1, probs.shape[2], 1))
    return -torch.log(chosen.clamp_min(1e-9)).mean()
