"""Each expert's share and load, by layer."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells import Cells, FrameError, Value, cells_of, group, sum_by, top_experts


def expert_usage(
    frame: pd.DataFrame,
    *,
    by: Sequence[str] = ("phase", "layer"),
    top_k: int = 1,
    value: Value = "weight",
    resamples: int = 0,
    seed: int = 0,
) -> pd.DataFrame:
    """How much of the routing goes to each expert.

    Args:
        frame: a routing frame; needs expert, `value`, the columns in `by`, and of run, sequence,
            position, layer, module what tells its cells apart.
        by: what to keep apart. Prompt and generated text are, unless told otherwise.
        top_k: an expert is loaded by a token if it is among the token's k largest weights.
        value: read routing weights, or shares of the contribution.
        resamples: how often to draw the sequences anew for 95 % intervals; 0 leaves them out.
        seed: of those draws.

    Returns:
        One row for each group and expert: the columns of `by`, expert, share (mean routing
        weight: P of the Switch Transformer, arXiv 2101.03961), load (fraction of tokens whose top
        k hold the expert: its f), tokens (how many cells were counted); with `resamples` also
        share_low, share_high, load_low, load_high: percentile bootstrap over whole sequences (the
        tokens of one text are no independent draws), NaN where there is one sequence only.
    """
    cells = cells_of(frame, value=value, keep=by)
    codes, heads = group(cells.keys, by)
    groups, experts = len(heads), len(cells.experts)
    is_top = top_experts(cells.weights, top_k).astype(float)
    values = np.hstack([cells.weights, is_top])
    tokens = np.bincount(codes, minlength=groups)
    means = sum_by(codes, groups, values) / tokens[:, None]
    usage = heads.loc[heads.index.repeat(experts)].reset_index(drop=True)
    usage["expert"] = cells.expert_column(np.tile(np.arange(experts), groups))
    usage["share"] = means[:, :experts].ravel()
    usage["load"] = means[:, experts:].ravel()
    usage["tokens"] = tokens.repeat(experts)
    if resamples:
        low, high = _intervals(cells, codes, groups, values, resamples, seed)
        usage["share_low"], usage["share_high"] = (
            low[:, :experts].ravel(),
            high[:, :experts].ravel(),
        )
        usage["load_low"], usage["load_high"] = low[:, experts:].ravel(), high[:, experts:].ravel()
    return usage


def _intervals(
    cells: Cells,
    codes: NDArray[np.intp],
    groups: int,
    values: NDArray[np.float64],
    resamples: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """2.5th and 97.5th percentile of the group means, `[group, column]`."""
    owner = [name for name in ("run", "sequence") if name in cells.keys]
    if not owner:
        raise FrameError("Intervals draw sequences anew, and the frame has no column 'sequence'.")
    sequence, heads = group(cells.keys, owner)
    many = len(heads)
    if many < 2:
        unknown = np.full((groups, values.shape[1]), np.nan)
        return unknown, unknown
    place = codes * many + sequence
    sums = sum_by(place, groups * many, values).reshape(groups, many, -1)
    counts = np.bincount(place, minlength=groups * many).reshape(groups, many)
    draws = np.random.default_rng(seed).multinomial(many, np.full(many, 1 / many), resamples)
    low, high = [], []
    for total, count in zip(sums, counts, strict=True):
        drawn = (draws @ count)[:, None]
        means = np.divide(draws @ total, drawn, out=np.full((resamples, values.shape[1]), np.nan),
                          where=drawn > 0)  # fmt: skip
        low.append(np.nanquantile(means, 0.025, axis=0))
        high.append(np.nanquantile(means, 0.975, axis=0))
    return np.array(low), np.array(high)
