"""Oracle and regret: how far the router is from the expert that is best for each token.

A pass under one expert gives a token's loss after a context that the same expert read, so the
oracle changes more than the token's own routing: it is a mark to compare with, not one that a
router is known to reach.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmoe_studio.routing.plan import Override, RoutingPlan

ROUTER, UNIFORM, BASE = "router", "uniform", "base"


def usual_plans(experts: tuple[str, ...]) -> dict[str, RoutingPlan | None]:
    """What a router is compared with: itself, uniform weights, no expert, each expert alone."""
    return {
        ROUTER: None,
        UNIFORM: RoutingPlan([Override.uniform()]),
        BASE: RoutingPlan([Override.bypass()]),
        **{alone(name): RoutingPlan([Override.solo(name)]) for name in experts},
    }


def alone(expert: str) -> str:
    """The name of an expert's own plan; no expert's name has a space."""
    return f"only {expert}"


@dataclass(frozen=True)
class Oracle:
    """The best single expert, known in hindsight."""

    per_token: NDArray[np.float64]
    """Loss of each token under the expert that is best for it."""
    expert: NDArray[np.intp]
    """Which expert that is."""
    per_text: NDArray[np.float64]
    """Loss of each token under the one expert that is best for the text as a whole."""

    def regret(self, router: NDArray[np.float64]) -> NDArray[np.float64]:
        """Nats that each token costs more under the router; negative where a mixture is better."""
        return router - self.per_token


def oracle(single: NDArray[np.float64]) -> Oracle:
    """Pick the best expert of each token, and of the text.

    Args:
        single: `[expert, token]`: losses of a text in a pass under each expert alone.
    """
    best = single.argmin(axis=0)
    whole = int(single.sum(axis=1).argmin())
    return Oracle(np.take_along_axis(single, best[None], axis=0)[0], best, single[whole])
