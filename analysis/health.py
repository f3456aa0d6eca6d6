"""Is the router in good health, or does one expert get everything?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.cells import Value, as_distributions, cells_of, entropy, group, mean_by

LIVE_SHARE = 0.05
"""An expert with a smaller share of the routing does not take part."""
DEAD_SHARE = 0.01
"""An expert with a smaller share is dead."""
WATCH_SHARE, COLLAPSED_SHARE = 0.80, 0.95
WATCH_ENTROPY = 0.75
FEWEST_LIVE = 3


def gate_health(
    frame: pd.DataFrame, *, by: Sequence[str] = ("layer",), value: Value = "weight"
) -> pd.DataFrame:
    """Signs of collapse, from the mean routing of each group.

    Collapse shows in the mean over tokens: single tokens may well be routed sharply. The limits are
    those of the Relax project for mixtures of LoRA experts (its RFCs #220 and #224), over
    a text with several kinds of token; a text of one kind may rightly use one expert.

    Args:
        frame: a routing frame; needs expert, `value`, and the columns in `by`.
        by: what to keep apart.
        value: read routing weights, or shares of the contribution.

    Returns:
        One row a group: the columns of `by`, top_expert, max_share (its share of the mean
        distribution), entropy (of that distribution, over its maximum: 1 all alike), live (experts
        with at least 5 %), dead (how many have less than 1 %), dead_experts (their names), silent
        (share of the cells without any expert, which get the base model alone), health:
        "collapsed" (max_share at least 0.95), "watch" (max_share above 0.8, entropy below 0.75,
        or fewer than 3 live experts where there are as many), else "good"; "no weight" where no
        expert has any.
    """
    cells = cells_of(frame, value=value, keep=by)
    codes, heads = group(cells.keys, by)
    mean = as_distributions(mean_by(codes, len(heads), np.clip(cells.weights, 0, None)))
    many = mean.shape[1]
    top, spread = mean.max(axis=1), entropy(mean) / np.log(max(2, many))
    live, dead = (mean >= LIVE_SHARE).sum(axis=1), mean < DEAD_SHARE
    watch = (top > WATCH_SHARE) | (spread < WATCH_ENTROPY) | (live < min(FEWEST_LIVE, many))
    names = np.asarray(cells.experts, dtype=object)
    return heads.assign(
        top_expert=cells.expert_column(mean.argmax(axis=1)),
        max_share=top,
        entropy=spread,
        live=live,
        dead=dead.sum(axis=1),
        dead_experts=[", ".join(map(str, names[row])) for row in dead],
        silent=mean_by(codes, len(heads), (cells.weights == 0).all(axis=1, keepdims=True))[:, 0],
        health=np.select(
            [top == 0, (top >= COLLAPSED_SHARE) & (many > 1), watch & (many > 1)],
            ["no weight", "collapsed", "watch"],
            "good",
        ),
    )
