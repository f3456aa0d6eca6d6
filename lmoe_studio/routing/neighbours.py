"""Votes of the nearest examples: how a token is routed, or decoded (RTD, arXiv 2409.20181)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

_LEAST = 1e-9  # of a share, whose logarithm is a logit
_ROWS = 1024  # of a memory that are compared with all of it at once


class Neighbours(NamedTuple):
    """The nearest keys, nearest first."""

    distance: Float[Tensor, "*batch k"]
    """Squared."""
    key: Int[Tensor, "*batch k"]


def squared_distances(
    query: Float[Tensor, "*batch d"], keys: Float[Tensor, "memory d"], heads: int = 1
) -> Float[Tensor, "*batch head memory"]:
    """Squared distances to all keys, head by head.

    With several heads, query and keys are cut into as many slices, whose distances are multiplied by
    their number, so that they are of the size of whole ones; their mean over heads is the whole one.

    Args:
        query: what to find neighbours of; width a multiple of `heads`.
        keys: the memory.
        heads: slices.
    """
    ours, theirs = query.unflatten(-1, (heads, -1)), keys.unflatten(-1, (heads, -1))
    product = torch.einsum("...hd,mhd->...hm", ours, theirs)
    sizes = ours.square().sum(-1)[..., None] + theirs.square().sum(-1).T
    return heads * (sizes - 2 * product).clamp_min(0)


def nearest(distances: Float[Tensor, "*batch memory"], k: int) -> Neighbours:
    """The k nearest keys, or all if there are fewer."""
    near = distances.topk(min(k, distances.shape[-1]), dim=-1, largest=False)
    return Neighbours(near.values, near.indices)


def votes(
    near: Neighbours, labels: Int[Tensor, " memory"], count: int, temperature: Tensor | float
) -> Float[Tensor, "*batch label"]:
    """`p(v) = Σ_{j near, v_j = v} e^{−d_j/τ} / Σ_{j near} e^{−d_j/τ}`.

    As a softmax: the published form does not shift the exponents, and all shares of a far query
    vanish. The mean of heads' votes is the multi-head vote.

    Args:
        near: the neighbours.
        labels: v of each key.
        count: how many labels there are.
        temperature: τ, in squared distances.
    """
    shares = (-near.distance / temperature).softmax(dim=-1)
    members = F.one_hot(labels, count).to(shares.dtype)
    return torch.einsum("...k,...kn->...n", shares, members[near.key])


def vote_logits(shares: Float[Tensor, "*batch label"]) -> Float[Tensor, "*batch label"]:
    """Logits of which a softmax gives the shares back."""
    return shares.clamp_min(_LEAST).log()


def usual_temperature(keys: Float[Tensor, "memory d"], k: int, heads: int = 1) -> float:
    """Median over the memory of the distance from a key to the k-th of the others.

    The published values (160 for one model, 1,000 to 5,000 for others) go with their models' scale.
    """
    if len(keys) < 2:
        return 1.0
    k = min(k, len(keys) - 1)
    found = [
        nearest(squared_distances(part, keys, heads), k + 1).distance[..., -1]
        for part in keys.split(_ROWS)
    ]
    median = float(torch.cat(found).median())  # the key itself is the first of k + 1
    return median or 1.0


def mixed(
    model: Float[Tensor, "*batch token"], reference: Float[Tensor, "*batch token"], mix: float
) -> Float[Tensor, "*batch token"]:
    """`(1 − λ) p_model + λ p_ref`: the paper's, which its code does not have."""
    return torch.lerp(model, reference, mix)
