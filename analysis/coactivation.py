"""Which experts are used together?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells import Value, cells_of, group, top_experts


def coactivation(
    frame: pd.DataFrame,
    *,
    by: Sequence[str] = ("layer",),
    top_k: int = 2,
    value: Value = "weight",
) -> pd.DataFrame:
    """How often two experts are among a token's k largest, over all pairs.

    Args:
        frame: a routing frame; needs expert, `value`, and the columns in `by`.
        by: what to keep apart.
        top_k: an expert is active if it is among the k largest weights of the cell, and above 0.
        value: read routing weights, or shares of the contribution.

    Returns:
        One row for each group and ordered pair of different experts: the columns of `by`, expert,
        other, together (cells where both are active), share (of all cells), conditional (of the
        cells of `expert`, where `other` is active too: OLMoE's co-activation, arXiv 2409.02060),
        lift (share over what independence would give; 1: chance), correlation (Pearson, of the two
        weights over the cells: says something also where every expert is always active). NaN where
        a number does not exist: an expert that is never active, a weight that never changes.
    """
    cells = cells_of(frame, value=value, keep=by)
    codes, heads = group(cells.keys, by)
    active = top_experts(cells.weights, top_k).astype(float)
    tables = []
    for index in range(len(heads)):
        rows = codes == index
        pairs = _pairs(active[rows], cells.weights[rows])
        pairs.insert(0, "expert", cells.expert_column(pairs.pop("i").to_numpy()))
        pairs.insert(1, "other", cells.expert_column(pairs.pop("j").to_numpy()))
        for place, name in enumerate(heads):
            pairs.insert(place, name, heads[name].iloc[index])
        tables.append(pairs)
    return pd.concat(tables, ignore_index=True)


def _pairs(active: NDArray[np.float64], weights: NDArray[np.float64]) -> pd.DataFrame:
    count, experts = active.shape
    together = active.T @ active
    own = np.diag(together)
    i, j = np.nonzero(~np.eye(experts, dtype=bool))
    centred = weights - weights.mean(axis=0)
    spread = np.sqrt((centred**2).sum(axis=0))
    spread[spread < 1e-12 * max(1, count)] = np.nan  # a constant weight is left with rounding noise
    with np.errstate(divide="ignore", invalid="ignore"):
        return pd.DataFrame(
            {
                "i": i,
                "j": j,
                "together": together[i, j].astype(int),
                "share": together[i, j] / count,
                "conditional": together[i, j] / own[i],
                "lift": together[i, j] * count / (own[i] * own[j]),
                "correlation": (centred.T @ centred)[i, j] / (spread[i] * spread[j]),
            }
        )
