"""Each expert's share and load, by layer."""

import pandas as pd


def expert_usage(
    frame: pd.DataFrame, *, by: tuple[str, ...] = ("phase", "layer"), top_k: int = 1
) -> pd.DataFrame:
    """How much of the routing goes to each expert.

    Args:
        frame: a routing frame; needs sequence, position, layer, expert, weight, and the columns
            in `by` (and module, where every module has a router).
        by: what to keep apart. Prompt and generated text are, unless told otherwise.
        top_k: an expert is loaded by a token if it is among the token's k largest weights.

    Returns:
        One row for each group and expert: the columns of `by`, expert, share (mean routing
        weight: P of the Switch Transformer, arXiv 2101.03961), load (fraction of tokens whose top
        k hold the expert: its f), tokens (how many cells were counted).
    """
    keys = list(by)
    cell = [c for c in ("run", "sequence", "position", "layer", "module") if c in frame]
    place = frame.groupby(cell, observed=True)["weight"].rank(method="first", ascending=False)
    marked = frame.assign(is_top=(place <= top_k) & (frame["weight"] > 0))
    usage = marked.groupby([*keys, "expert"], observed=True).agg(
        share=("weight", "mean"), load=("is_top", "mean"), tokens=("weight", "size")
    )
    return usage.reset_index()
