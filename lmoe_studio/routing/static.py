"""Whether a plan leaves nothing to the router: then it is a fixed blend, which can be merged."""

import torch

from lmoe_studio.errors import PlanError
from lmoe_studio.routing.apply import compile_plans
from lmoe_studio.routing.check import check_plan
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.routing.router import RouterOutput, TokenBatch

_SAME = 1e-6


def static_blends(
    plan: RoutingPlan,
    *,
    experts: tuple[str, ...],
    num_layers: int,
    why: str = "a merge has one set of weights for all tokens",
) -> list[dict[str, float]]:
    """The weights that a plan fixes, for each layer.

    The plan is run on what different routers might say; where its answer differs, it depends on
    the router, and so on the token.

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
    probes = _probes(len(experts))
    count = probes.logits.shape[1]
    ids = torch.zeros(1, count, dtype=torch.long)
    tokens = TokenBatch(ids, ids, torch.ones_like(ids, dtype=torch.bool), ids - 1)
    compiled = compile_plans([plan], experts=experts, num_layers=num_layers, tokens=tokens)
    blends = []
    for layer in range(num_layers):
        weights = probes.weights
        if compiled is not None:
            weights = compiled.apply(layer, probes, lambda logits: logits.softmax(dim=-1))
        if (weights - weights[:, :1]).abs().max() > _SAME:
            raise PlanError(
                f"In layer {layer} the plan leaves weights to the router, which decides by token, "
                f"and {why}; pin, solo, bypass or make uniform every layer, at strength 1."
            )
        blends.append(dict(zip(experts, weights[0, 0].tolist(), strict=True)))
    return blends


def _probes(count: int) -> RouterOutput:
    """A router that is sure of each expert in turn, and one that is undecided."""
    logits = torch.cat([torch.eye(count) * 4, torch.zeros(1, count)])[None]
    weights = logits.softmax(dim=-1)
    return RouterOutput(logits, weights, weights)
