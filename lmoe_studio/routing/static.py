"""Whether a plan leaves nothing to the router: then it is a fixed blend, which can be merged."""

import torch

from lmoe_studio.errors import PlanError
from lmoe_studio.routing.apply import compile_plans
from lmoe_studio.routing.check import check_plan
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.routing.router import RouterOutput, TokenBatch


def static_blends(
    plan: RoutingPlan,
    *,
    experts: tuple[str, ...],
    num_layers: int,
    why: str = "a merge has one set of weights for all tokens",
) -> list[dict[str, float]]:
    """The weights that a plan fixes, for each layer.

    Each layer must have an override that sets all weights, whatever the router says; others may
    stand before and after it.

    Args:
        plan: what a person asks for.
        experts: the bank's expert names, in order.
        num_layers: decoder blocks of the model.
        why: for the message about a plan that depends on the token.

    Raises:
        PlanError: the plan does not fit the bank, or its weights depend on the token.
    """
    check_plan(plan, experts=experts, num_layers=num_layers)
    for number, override in enumerate(plan.overrides, start=1):
        if override.tokens != "all" and override.strength > 0:
            raise PlanError(
                f"Override {number} ({override.operation}) holds for some tokens only, and {why}; "
                "let it hold for all tokens."
            )
    ids = torch.zeros(1, 1, dtype=torch.long)
    tokens = TokenBatch(ids, ids, torch.ones_like(ids, dtype=torch.bool), ids - 1)
    compiled = compile_plans([plan], experts=experts, num_layers=num_layers, tokens=tokens)
    anything = torch.zeros(1, 1, len(experts))
    output = RouterOutput(anything, anything, anything, gate=lambda logits: logits)
    blends = []
    for layer in range(num_layers):
        if compiled is None or not compiled.settles(layer):
            raise PlanError(
                f"In layer {layer} the plan leaves weights to the router, which decides by token, "
                f"and {why}; pin, solo, bypass or make uniform every layer, at strength 1."
            )
        weights = compiled.apply(layer, output)
        blends.append(dict(zip(experts, weights[0, 0].tolist(), strict=True)))
    return blends
