"""How the routers do, from the mean routing weights of one step."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.health import gate_health
from lmoe_studio.mixture.sites import Site
from lmoe_studio.training.events import GroupHealth

_GROUPS = 3  # lower, middle and upper layers


def routing_gauges(
    sites: Sequence[Site], experts: Sequence[str], weights: NDArray[np.float64]
) -> tuple[dict[str, float], tuple[GroupHealth, ...]]:
    """Each expert's share, and the health of the lower, middle and upper layers.

    Args:
        sites: where routers decide.
        experts: names in the bank's order.
        weights: mean routing weight, `[site, expert]`.
    """
    weights = np.abs(weights)  # without a softmax they may be negative, and need not sum to 1
    weights = weights / weights.sum(axis=1, keepdims=True).clip(1e-9)
    layers = sorted({site.layer for site in sites})
    groups = [part for part in np.array_split(layers, min(_GROUPS, len(layers))) if len(part)]
    rows = []
    for part in groups:
        inside = [index for index, site in enumerate(sites) if site.layer in part]
        name = f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}"
        for expert, weight in zip(experts, weights[inside].mean(axis=0), strict=True):
            rows.append({"layers": name, "layer": part[0], "expert": expert, "weight": weight})
    frame = pd.DataFrame(rows)
    frame["expert"] = pd.Categorical(frame["expert"], categories=list(experts))
    found = gate_health(frame, by=["layers"]).to_dict(orient="records")
    shares = dict(zip(experts, map(float, weights.mean(axis=0)), strict=True))
    return shares, tuple(
        GroupHealth(
            layers=str(row["layers"]),
            top_expert=str(row["top_expert"]),
            max_share=float(row["max_share"]),
            entropy=float(row["entropy"]),
            dead_experts=tuple(filter(None, str(row["dead_experts"]).split(", "))),
            health=str(row["health"]),
        )
        for row in found
    )
