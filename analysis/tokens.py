"""Which tokens is an expert for?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.cells import Value, cells_of, group, mean_by, require


def expert_tokens(
    frame: pd.DataFrame,
    *,
    by: Sequence[str] = (),
    minimum: int = 5,
    most: int = 20,
    value: Value = "weight",
) -> pd.DataFrame:
    """The tokens that an expert gets more of than its share of everything.

    Raw counts only show the commonest tokens; lift, `mean weight on the token / mean weight on all
    tokens`, shows what is the expert's own. Rare tokens reach any lift by chance, so a token must
    occur `minimum` times.

    Args:
        frame: a routing frame; needs position, token, expert, `value`, and the columns in `by`.
        by: what to keep apart, for example ("layer",).
        minimum: fewest occurrences in the text of a token that is listed.
        most: how many tokens to list for each expert.
        value: read routing weights, or shares of the contribution.

    Returns:
        One row for each group, expert and token, by falling lift: the columns of `by`, expert,
        token, occurrences, share (mean weight of the expert on it, over layers), lift. An expert
        without any weight has no tokens.
    """
    require(frame, "position", "token")
    cells = cells_of(frame, value=value, keep=[*by, "token"])
    outer, heads = group(cells.keys, by)
    inner, pairs = group(cells.keys, [*by, "token"])
    places = [name for name in ("run", "sequence", "position") if name in cells.keys]
    seen = cells.keys.assign(pair=inner).drop_duplicates([*places, "pair"])["pair"]
    occurrences = np.bincount(seen, minlength=len(pairs))
    shares = mean_by(inner, len(pairs), cells.weights)
    overall = mean_by(outer, len(heads), cells.weights)
    owner = outer[np.unique(inner, return_index=True)[1]]  # the outer group of each pair
    base = overall[owner]
    lift = np.divide(shares, base, out=np.zeros_like(shares), where=base > 0)
    tables = []
    for code in range(len(heads)):
        for expert in range(len(cells.experts)):
            if overall[code, expert] <= 0:
                continue
            rows = np.flatnonzero((owner == code) & (occurrences >= minimum))
            # The commoner token, then the earlier in the alphabet, comes first among equals.
            order = np.lexsort((rows, -occurrences[rows], -lift[rows, expert]))[:most]
            rows = rows[order]
            tables.append(
                pairs.iloc[rows].assign(
                    expert=expert,
                    occurrences=occurrences[rows],
                    share=shares[rows, expert],
                    lift=lift[rows, expert],
                )
            )
    columns = [*by, "expert", "token", "occurrences", "share", "lift"]
    if not tables:
        return pd.DataFrame(columns=columns)
    found = pd.concat(tables, ignore_index=True)
    found["expert"] = cells.expert_column(found["expert"].to_numpy())
    return found[columns]
