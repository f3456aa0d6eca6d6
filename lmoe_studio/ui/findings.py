"""Findings as sentences: what a study claims, and what it only counts.

Two questions are tested, who owns a label and in which layers the routing says something about it;
each gets half of the 5 %, so that at most one study in twenty with labels dealt out at random
claims anything.
"""

from typing import Any

import pandas as pd

SURE = 0.05 / 2
"""Largest p-value of a claim; the p-values are corrected within each question."""
FEWEST_TOKENS = 50
"""A mean over fewer says nothing about the health of a router."""
_LONGEST_LABEL = 80
_ALIKE = 0.0005
"""Shares that differ by less look the same in a sentence."""


def of_owners(owners: pd.DataFrame, shares: pd.DataFrame) -> list[str]:
    """A sentence a label.

    Args:
        owners: of `label_owners`.
        shares: of `label_shares`, over all layers.
    """
    by_label = dict(list(shares.groupby("label")["share"]))
    rows: list[Any] = list(owners.itertuples())
    return [
        _of_owner(owner, is_led=(by_label[owner.label] > owner.top_share - _ALIKE).sum() == 1)
        for owner in rows
    ]


def _of_owner(owner: Any, *, is_led: bool) -> str:
    top, mean = _percent(owner.top_share), _percent(owner.share - owner.excess)
    own = f"{_percent(owner.share)} against {mean}"
    label = str(owner.label)
    label = label if len(label) <= _LONGEST_LABEL else f"{label[:_LONGEST_LABEL]}…"
    if not is_led:
        first = f"{label}: no expert has a larger share than all others"
    elif owner.p_value <= SURE and owner.expert == owner.top_expert:
        return (
            f"{label} is handled by expert {owner.expert}: {top} of the routing in its texts, against "
            f"{mean} on average over the labels; {_where(owner)}."
        )
    else:
        first = f"{label}: {owner.top_expert} has the largest share ({top})"
    if owner.excess <= _ALIKE:
        return f"{first}, and no expert is above its mean over the labels."
    furthest = "it" if is_led and owner.expert == owner.top_expert else str(owner.expert)
    if owner.p_value <= SURE:
        return f"{first}; {furthest} is furthest above its mean ({own}), {_where(owner)}."
    return f"{first}; {furthest} is furthest above its mean ({own}), which may be chance."


def _where(owner: Any) -> str:
    return f"most clearly in layer {owner.layer} ({_percent(owner.layer_share)})"


def of_specialisation(separation: pd.DataFrame) -> str:
    """In how many layers the routing says something about the label; of `specialisation`."""
    above = separation[separation["p_value"] <= SURE]
    best = separation.iloc[separation["information"].argmax()]
    numbers = (
        f"most in layer {best['layer']:.0f}: {best['information']:.2f} of at most "
        f"{best['maximum']:.2f} bits, where shuffled labels give {best['baseline']:.2f}."
    )
    if above.empty:
        return (
            f"In none of {len(separation)} layers the routing says more about the label than "
            f"shuffled labels may; {numbers}"
        )
    return (
        f"In {len(above)} of {len(separation)} layers the routing says more about the label than "
        f"shuffled labels do; {numbers}"
    )


def of_active(active: pd.DataFrame) -> str:
    """How many experts act, and where none does; of `active_experts` by layer."""
    share = active["tokens"] / active["tokens"].sum()
    mean = {name: float((active[name] * share).sum()) for name in ("active", "mass", "silent")}
    first = (
        f"On average {mean['active']:.1f} experts act on a token, with a weight of {mean['mass']:.2f} "
        "in all"
    )
    if not mean["silent"]:
        return f"{first}; in no layer a token is without an expert."
    worst = active.iloc[active["silent"].argmax()]
    return (
        f"{first}; none does in {_percent(mean['silent'])} of the cells, most often in layer "
        f"{worst['layer']:.0f} ({_percent(worst['silent'])} of the tokens)."
    )


def of_health(health: pd.DataFrame) -> str:
    """Which routers to look at; of `gate_health` by layer."""
    bad = health[health["health"] != "good"]
    if bad.empty:
        return "The routers of all layers are in good health: none is near collapse."
    layers = ", ".join(f"{row.layer} ({row.health})" for row in bad.itertuples())
    return f"Routers to look at, by layer: {layers}."


def too_few(tokens: int) -> str:
    """Instead of a verdict on the routers."""
    them = "one token" if tokens == 1 else f"{tokens} tokens"
    return (
        f"The texts have {them}, which is too little to say anything about the health of the "
        f"routers; that takes {FEWEST_TOKENS} or more."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
