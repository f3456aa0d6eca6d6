"""Where does a token go from one layer to the next?"""

from itertools import pairwise

import numpy as np
import pandas as pd

from analysis.cells import Value, cells_of, group, mean_by, require


def layer_transitions(frame: pd.DataFrame, *, value: Value = "weight") -> pd.DataFrame:
    """How often a token's top expert in one layer is followed by each top expert in the next.

    Where every module has a router, a layer's top expert is that of its mean weights.

    Args:
        frame: a routing frame; needs position, layer, expert, `value`, and of run and sequence what
            tells its texts apart.
        value: read routing weights, or shares of the contribution.

    Returns:
        One row for each pair that occurs: layer, to_layer (the next one in the frame), expert,
        to_expert, tokens, share (of all tokens), probability (of the tokens that were with
        `expert`), lift (probability over the share of `to_expert` in `to_layer`; 1: the way there
        does not matter). Tokens without weight in a layer are left out there.
    """
    require(frame, "position", "layer")
    cells = cells_of(frame, value=value, keep=("position", "layer"))
    text = [name for name in ("run", "sequence") if name in cells.keys]
    codes, heads = group(cells.keys, [*text, "position", "layer"])
    weights = mean_by(codes, len(heads), cells.weights)
    top = np.where(weights.max(axis=1) > 0, weights.argmax(axis=1), -1)
    paths = heads.assign(top=top).pivot(
        index=[*text, "position"], columns="layer", values="top"
    )  # a token a row, a layer a column
    layers = list(paths.columns)
    steps = [
        _step(paths[one].to_numpy(), paths[other].to_numpy(), len(cells.experts)).assign(
            layer=one, to_layer=other
        )
        for one, other in pairwise(layers)
    ]
    columns = ["layer", "to_layer", "expert", "to_expert", "tokens", "share", "probability", "lift"]
    if not steps:
        return pd.DataFrame(columns=columns)
    table = pd.concat(steps, ignore_index=True)
    for name in ("expert", "to_expert"):
        table[name] = cells.expert_column(table[name].to_numpy())
    return table[columns]


def _step(one: np.ndarray, other: np.ndarray, experts: int) -> pd.DataFrame:
    present = (one >= 0) & (other >= 0)  # NaN, a layer that a token lacks, is neither
    pairs = one[present].astype(int) * experts + other[present].astype(int)
    counts = np.bincount(pairs, minlength=experts**2).reshape(experts, experts)
    i, j = np.nonzero(counts)
    tokens, leaving, arriving = counts[i, j], counts.sum(1)[i], counts.sum(0)[j]
    return pd.DataFrame(
        {
            "expert": i,
            "to_expert": j,
            "tokens": tokens,
            "share": tokens / counts.sum(),
            "probability": tokens / leaving,
            "lift": tokens * counts.sum() / (leaving * arriving),
        }
    )
