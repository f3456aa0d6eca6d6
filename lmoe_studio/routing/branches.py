"""Experts in levels, each level's choice made under the one above (S'MoRE, arXiv 2504.06426).

A token has a query; a node of the top level is chosen by it, then one of the next level by the query
and the chosen node's key, down to the leaves. With no activation between levels the published layer
*is* a mixture of LoRAs, in which a node's weight is the sum over all paths that lead to it of the
products along them. So here every node is an expert of the bank and has that weight: each level sums
to 1.

Levels are listed from the top. A branch is a node under one path of nodes above it: the branches of
a level are `[…, top, …, node]`. Flat, all branches stand in one row, level after level.
"""

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Branches = list[Tensor]
"""One tensor a level, `[…, top, …, node]`."""


class LevelGate(NamedTuple):
    """The parameters by which one level chooses."""

    w1: Float[Tensor, "inner query"]
    b1: Float[Tensor, " inner"]
    w2: Float[Tensor, "key inner"]
    b2: Float[Tensor, " key"]
    keys: Float[Tensor, "node key"]


def branch_logits(
    query: Float[Tensor, "*batch width"], gates: Sequence[LevelGate], *, cosine: bool = False
) -> Branches:
    """What each node says of itself under each path above it, `k_c · (W2 relu(W1 q + b1) + b2)`.

    q is the token's query with the keys of the path's nodes behind it. Its product with W1 is taken
    part by part, so that no query is written out for every path.

    Args:
        query: `D h + δ`.
        gates: one a level, from the top.
        cosine: both sides of the product at length 1, and keys at length 1 handed down (the
            published noisy gate without its noise). Logits then lie between -1 and 1, and
            `temperature` has to sharpen them: the published gate has none, and of two children none
            gets less than 0.12.
    """
    found, above = [], list[Tensor]()
    for gate in gates:
        keys = F.normalize(gate.keys, dim=-1) if cosine else gate.keys
        own, *handed = gate.w1.split([query.shape[-1], *(one.shape[-1] for one in above)], dim=1)
        inner = F.linear(query, own, gate.b1)
        for key, part in zip(above, handed, strict=True):
            inner = inner[..., None, :] + F.linear(key, part)
        out = F.linear(inner.relu(), gate.w2, gate.b2)
        found.append((F.normalize(out, dim=-1) if cosine else out) @ keys.T)
        above.append(keys)
    return found


def flat(branches: Branches) -> Float[Tensor, "*batch branch"]:
    """All branches in one row."""
    return torch.cat([one.flatten(-depth) for depth, one in enumerate(branches, start=1)], dim=-1)


def unflat(row: Float[Tensor, "*batch branch"], sizes: Sequence[int]) -> Branches:
    """Branches from a row. `sizes`: nodes of each level, from the top."""
    shapes = [tuple(sizes[:depth]) for depth in range(1, len(sizes) + 1)]
    parts = row.split(list(accumulate(sizes, mul)), dim=-1)
    return [part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True)]


def shifted(
    branches: Branches, change: Float[Tensor, "*batch node"], sizes: Sequence[int]
) -> Branches:
    """Branches with a number added to each node's logit, under every path: what a plan's bias does."""
    parts = change.split(list(sizes), dim=-1)
    return [
        one + part.unflatten(-1, (*(1,) * depth, -1))
        for depth, (one, part) in enumerate(zip(branches, parts, strict=True))
    ]


def choices(
    branches: Branches, fan_outs: Sequence[int], temperature: float = 1.0
) -> list[Float[Tensor, "..."]]:
    """Under each path the shares of the `fan_out` best nodes: they sum to 1, the others have 0.

    A softmax over all of which the best are kept and scaled to 1 (`switch`) is the softmax over the
    best (`cosine`): the two published forms are one. A fan-out as large as its level keeps all
    (`dense`, where the original ignores the fan-out).
    """
    found = []
    for one, fan_out in zip(branches, fan_outs, strict=True):
        scaled = one if temperature == 1 else one / temperature
        if fan_out < one.shape[-1]:
            top = scaled.topk(fan_out, dim=-1)
            scaled = torch.full_like(scaled, -torch.inf).scatter(-1, top.indices, top.values)
        found.append(scaled.softmax(dim=-1))
    return found


def along_paths(chosen: Sequence[Tensor]) -> list[Float[Tensor, "..."]]:
    """The product of the shares along each path, level by level: `[…, top, …, node]`."""
    return list(accumulate(chosen, lambda above, own: above[..., None] * own))


def node_weights(chosen: Sequence[Tensor]) -> Float[Tensor, "*batch node"]:
    """Each node's weight: its paths' products summed. Each level sums to 1."""
    return torch.cat(
        [
            paths if not depth else paths.flatten(-depth - 1, -2).sum(dim=-2)
            for depth, paths in enumerate(along_paths(chosen))
        ],
        dim=-1,
    )


def heaviest_path(
    chosen: Sequence[Tensor],
) -> tuple[Int[Tensor, "*batch level"], Float[Tensor, "*batch 1"]]:
    """The nodes, from the top, of the path to a leaf that has the largest product, and that product."""
    paths = along_paths(chosen)[-1].flatten(-len(chosen))
    share, place = paths.max(dim=-1, keepdim=True)
    nodes = list[Tensor]()
    for level in reversed(chosen):
        nodes.append(place % level.shape[-1])
        place = place // level.shape[-1]
    return torch.cat(nodes[::-1], dim=-1), share


def node_logits(branches: Branches) -> Float[Tensor, "*batch node"]:
    """The logarithm of each node's weight before any is left out."""
    found, above = [], None
    for depth, one in enumerate(branches):
        own = one.log_softmax(dim=-1)
        paths = own if above is None else above[..., None] + own
        found.append(paths.flatten(-depth - 1, -2).logsumexp(dim=-2) if depth else paths)
        above = paths
    return torch.cat(found, dim=-1)


def switch_balance(branches: Branches, chosen: Sequence[Tensor]) -> Float[Tensor, " level"]:
    """`N Σ_i f_i P_i` of each level, as published: every path that a token takes is counted.

    f is the share of paths whose node has node i chosen under it, P the mean softmax there.
    Balanced, it is the level's fan-out.
    """
    found = []
    for one, kept, taken in _rows(branches, chosen):
        load = (kept[taken] > 0).to(one.dtype).mean(dim=0)
        found.append(one.shape[-1] * (load * one[taken].softmax(dim=-1).mean(dim=0)).sum())
    return torch.stack(found)


def variation_balance(branches: Branches, chosen: Sequence[Tensor]) -> Float[Tensor, " level"]:
    """Squared coefficients of variation of the nodes' summed shares and of how often each is chosen.

    What the published `cosine` gate is trained with (after arXiv 1701.06538); 0 when balanced.
    """
    found = []
    for _, kept, taken in _rows(branches, chosen):
        rows = kept[taken]
        sums = rows.sum(dim=0), (rows > 0).to(rows.dtype).sum(dim=0)
        found.append(sum(one.var() / (one.mean().square() + 1e-10) for one in sums))
    return torch.stack(found)


def _rows(branches: Branches, chosen: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Logits and shares of each level, `[…, path, node]`, and which paths are taken, `[…, path]`."""
    found = []
    above = [torch.ones_like(chosen[0][..., 0]), *along_paths(chosen)[:-1]]
    for depth, (one, kept, paths) in enumerate(zip(branches, chosen, above, strict=True)):
        if not depth:
            found.append((one[..., None, :], kept[..., None, :], paths[..., None] > 0))
        else:
            found.append(
                (
                    one.flatten(-depth - 1, -2),
                    kept.flatten(-depth - 1, -2),
                    paths.flatten(-depth) > 0,
                )
            )
    return found
