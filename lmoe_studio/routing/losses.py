"""What training asks of the routing besides a good language model."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def routing_shares(
    probs: Float[Tensor, "*batch expert"],
) -> Float[Tensor, "*batch expert"]:
    """Each expert's share of a token's routing: probabilities over their sum.

    The losses below compare experts with one another: of independent sigmoids each could rise at no
    other's cost, and all would. A softmax sums to 1 already.
    """
    return probs / probs.sum(dim=-1, keepdim=True).clamp_min(1e-9)


def load_balancing_loss(
    probs: Float[Tensor, "batch seq site expert"],
    mask: Bool[Tensor, "batch seq"],
    load: Float[Tensor, "site expert"] | None = None,
) -> Float[Tensor, ""]:
    """`N Σ_i f_i P_i`, mean over sites: 1 when balanced, N when one expert takes all.

    `f` is the share of tokens whose top choice is expert i and `P` its mean probability (Switch
    Transformer, arXiv 2101.03961, eq. 4). Padding is left out.

    Args:
        probs: the routers' probabilities.
        mask: False for padding.
        load: `f`, where it is known over more tokens than these (the other processes').
    """
    load = expert_load(probs, mask) if load is None else load
    return probs.shape[-1] * (load * token_mean(probs, mask)).sum(dim=-1).mean()


def expert_load(
    probs: Float[Tensor, "batch seq site expert"], mask: Bool[Tensor, "batch seq"]
) -> Float[Tensor, "site expert"]:
    """Share of tokens whose top choice is each expert."""
    return top_choices(probs, mask) / mask.sum().clamp_min(1)


def top_choices(
    probs: Float[Tensor, "batch seq site expert"], mask: Bool[Tensor, "batch seq"]
) -> Float[Tensor, "site expert"]:
    """How many tokens have each expert as their top choice."""
    first = F.one_hot(probs.argmax(dim=-1), probs.shape[-1]).to(probs.dtype)
    return torch.einsum("bsnl,bs->nl", first, mask.to(probs.dtype))


def router_z_loss(
    logits: Float[Tensor, "batch seq site expert"], mask: Bool[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Mean squared log-sum-exp of the logits, which keeps them small (arXiv 2202.08906, eq. 5)."""
    return token_mean(logits.logsumexp(dim=-1, keepdim=True).square(), mask).mean()


def skill_loss(
    probs: Float[Tensor, "batch seq site expert"],
    skills: Int[Tensor, " batch"],
    mask: Bool[Tensor, "batch seq"],
    allowed: Bool[Tensor, "batch seq site expert"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy between routing probabilities and each example's skill, an expert's index.

    Rows with skill -1 have none and are left out. A token that may not use its skill's expert has
    nothing to learn there, and 0.
    """
    kept = mask & (skills >= 0)[:, None]
    target = skills.clamp_min(0)[:, None, None, None].expand(*probs.shape[:-1], 1)
    chosen = -torch.log(probs.gather(-1, target).clamp_min(1e-9))
    if allowed is not None:
        chosen = chosen * allowed.gather(-1, target)
    return token_mean(chosen, kept).mean()


def token_mean(
    values: Float[Tensor, "batch seq site last"], mask: Bool[Tensor, "batch seq"]
) -> Float[Tensor, "site last"]:
    """Mean over the tokens that are not masked; 0 where there are none."""
    weights = mask.to(values.dtype)
    return torch.einsum("bsnl,bs->nl", values, weights) / weights.sum().clamp_min(1)
