"""Pooling: one decision a text, or one that settles while the prompt is read.

A sequence-level router (WEMoE, arXiv 2402.00433) averages its scores over the whole text. In a
language model a token would then be routed by what comes after it. So besides the published mean
(`prompt`) there is one that sees the past only (`prefix`); both leave padding out, which the
published code averages in.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Pool = Literal["token", "prefix", "prompt"]
"""Each token's own scores; their mean over the prompt so far; their mean over the prompt."""


def pooled(
    logits: Float[Tensor, "batch seq expert"],
    counted: Bool[Tensor, "batch seq"],
    pool: Pool,
    past: Mapping[str, Tensor],
) -> tuple[Float[Tensor, "batch seq expert"], dict[str, Tensor]]:
    """The scores that tokens are routed by, and what to keep for the next pass over these texts.

    `prefix` gives each token the mean over the prompt's tokens up to and with it, `prompt` the mean
    over all of them in this pass. Tokens after the prompt go on with its last mean. Where none of the
    prompt has been seen, as on padding before it, the mean is 0.

    Args:
        logits: each token's own.
        counted: tokens of the prompt, no padding.
        pool: `token` leaves everything as it is and keeps nothing.
        past: what was kept: `pool_sum` `[batch, expert]` and `pool_count` `[batch, 1]`, or nothing.
            `prompt` takes these as final: a prompt has to be read in one pass.
    """
    if pool == "token":
        return logits, {}
    before = past.get("pool_sum", torch.zeros_like(logits[:, 0]))
    seen = past.get("pool_count", torch.zeros_like(before[:, :1]))
    mask = counted.to(logits.dtype)[..., None]
    # What was kept goes first, so that a text in parts is summed in the same order as whole.
    sums = torch.cat([before[:, None], logits * mask], dim=1).cumsum(dim=1)
    counts = torch.cat([seen[:, None], mask], dim=1).cumsum(dim=1)
    keep = {"pool_sum": sums[:, -1], "pool_count": counts[:, -1]}
    if pool == "prefix":
        return (sums / counts.clamp_min(1))[:, 1:], keep
    mean = keep["pool_sum"] / keep["pool_count"].clamp_min(1)
    return mean[:, None].expand_as(logits), keep
