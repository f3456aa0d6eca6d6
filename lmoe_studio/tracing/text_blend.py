"""The blend of a text: one set of weights a block, of those that its routers gave the tokens."""

import numpy as np
from numpy.typing import NDArray

from lmoe_studio.errors import PlanError
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.tracing.records import RoutingTrace


def text_blend(trace: RoutingTrace, *, router: RouterSettings, num_layers: int) -> RoutingPlan:
    """The plan that gives every token the weights of a text that was read.

    Where the router decides by a mean over the prompt (`pool: prefix` or `prompt`), that is what it
    gives each token after the text; else the mean over the text's tokens. Of routers that stand in
    linear layers it is the mean over those of the block. A plan's changes are not in it.

    Args:
        trace: of the text.
        router: that made it.
        num_layers: decoder blocks of the model, for those in which no expert changes anything.

    Raises:
        PlanError: a block's weights are none that a plan can give; names the block.
    """
    weights: NDArray[np.float64] = trace.router_weights.astype(np.float64)
    of_text = weights.mean(axis=0) if router.pool == "token" else weights[-1]
    layers = np.array(trace.site_layers)
    return RoutingPlan(
        _pinned(trace.experts, of_text[layers == layer].mean(axis=0), layer)
        if layer in trace.site_layers
        else Override.bypass(layers=[layer])
        for layer in range(num_layers)
    )


def _pinned(experts: tuple[str, ...], weights: NDArray[np.float64], layer: int) -> Override:
    used = {name: float(weight) for name, weight in zip(experts, weights, strict=True) if weight}
    if not used:
        return Override.bypass(layers=[layer])
    try:
        return Override.pin(used, layers=[layer], renormalise=False)
    except PlanError as error:
        _, _, reason = str(error).partition(": ")
        raise PlanError(
            f"No plan can give the blend of block {layer}: {reason} A router whose weights are "
            "shares (activation: softmax) stays within."
        ) from None
