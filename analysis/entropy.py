"""How spread out is the routing: of one token, and of all tokens together?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells import Value, cells_of, entropy, group, mean_by


def routing_entropy(
    frame: pd.DataFrame, *, by: Sequence[str] = ("phase", "layer"), value: Value = "weight"
) -> pd.DataFrame:
    """Entropy of the routing, `-Σ p ln p` of the weights scaled to sum to 1.

    The two numbers tell different stories: sharp routing that uses every expert has a low `token`
    and a high `overall`; a router that says the same to every token has equal ones; a collapsed
    router has both near 0 (it is judged by `overall`, not by single tokens).

    Args:
        frame: a routing frame; needs expert, `value`, and the columns in `by`.
        by: what to keep apart.
        value: read routing weights, or shares of the contribution.

    Returns:
        One row a group: the columns of `by`, token (nats: mean entropy of the single cells),
        overall (nats: entropy of the group's mean distribution), information (nats: overall -
        token, the mutual information of cell and expert), normalised (token over the log of the
        number of experts: 0 one expert, 1 all alike), tokens (cells counted: those with weight).
    """
    heads, codes, shares = _grouped(frame, by, value)
    token = mean_by(codes, len(heads), entropy(shares)[:, None])[:, 0]
    overall = entropy(mean_by(codes, len(heads), shares))
    return heads.assign(
        token=token,
        overall=overall,
        information=overall - token,
        normalised=token / np.log(max(2, shares.shape[1])),
        tokens=np.bincount(codes, minlength=len(heads)),
    )


def effective_experts(
    frame: pd.DataFrame, *, by: Sequence[str] = ("phase", "layer"), value: Value = "weight"
) -> pd.DataFrame:
    """How many experts the routing amounts to: `exp` of its entropy, from 1 to all of them.

    The perplexity of the weights (Hill's diversity of order 1, Ecology 54, 1973): two experts at
    one half each are 2 effective experts, one at 0.99 is barely more than 1.

    Args:
        frame: a routing frame; needs expert, `value`, and the columns in `by`.
        by: what to keep apart.
        value: read routing weights, or shares of the contribution.

    Returns:
        One row a group: the columns of `by`, token (mean over the cells of their effective
        number), overall (that of the group's mean distribution), tokens (cells counted: those with
        weight).
    """
    heads, codes, shares = _grouped(frame, by, value)
    return heads.assign(
        token=mean_by(codes, len(heads), np.exp(entropy(shares))[:, None])[:, 0],
        overall=np.exp(entropy(mean_by(codes, len(heads), shares))),
        tokens=np.bincount(codes, minlength=len(heads)),
    )


def _grouped(
    frame: pd.DataFrame, by: Sequence[str], value: Value
) -> tuple[pd.DataFrame, NDArray[np.intp], NDArray[np.float64]]:
    """Groups, and the group and distribution of every cell that has weight."""
    cells = cells_of(frame, value=value, keep=by)
    shares = cells.distributions()
    has_weight = shares.sum(axis=1) > 0
    codes, heads = group(cells.keys[has_weight], by)
    return heads, codes, shares[has_weight]
