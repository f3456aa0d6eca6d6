"""Plans become weights: compiled once a call, applied in every layer, no state.

A token's routing is the pair (z, w): the router's logits, and the weights that its gate makes of
them (activation, temperature, top-k: `w = gate(z)`). A plan works along that chain:

1. `bias` and `temperature`, top to bottom, change z. Where one did, the router decides anew:
   `w = gate(z)`. Everywhere else w stays the router's own, to the last bit.
2. The other operations, top to bottom, change w.

So each kind keeps its order, and what is set or banned stays so, whatever the router is made to
think. An override at strength s goes the share s of the way from what it finds to what its
operation makes of it: `z + s (z' - z)` or `w + s (w' - w)`.

Renormalising after ban, boost and top_k scales w so that `Σ |w|` is what it was before; where
nothing is left, nothing stays, and the token gets the base model.

Plans are per row: a batch may carry another plan on each row. The overrides that stand at the same
place of each row's plan and do the same kind of thing run as one operation for all rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lmoe_studio.errors import PlanError
from lmoe_studio.routing.check import check_plan
from lmoe_studio.routing.plan import (
    LOGIT_OPERATIONS,
    Override,
    RoutingPlan,
    Span,
    Steps,
)
from lmoe_studio.routing.router import RouterOutput, TokenBatch

Cells = Float[Tensor, "batch seq expert"]
Operator = Callable[[Cells], Cells]
_NOTHING = 1e-20  # a sum of weights below this is none


@dataclass(frozen=True)
class _Step:
    """One override, or several of different rows, ready to run."""

    layers: tuple[int, ...] | Span | None
    where: Bool[Tensor, "batch seq 1"] | None
    """Which tokens; None for all of them."""
    operator: Operator
    strength: Float[Tensor, "batch 1 1"] | None
    """None for 1 throughout."""

    def run(self, layer: int, cells: Cells) -> Cells:
        if self.layers is not None and layer not in self.layers:
            return cells
        changed = self.operator(cells)
        if self.strength is not None:
            changed = torch.lerp(cells, changed, self.strength.to(cells.dtype))
        return changed if self.where is None else torch.where(self.where, changed, cells)


@dataclass(frozen=True)
class CompiledPlan:
    """The steps of a batch's plans, in order."""

    logit_steps: tuple[_Step, ...]
    weight_steps: tuple[_Step, ...]

    def apply(self, layer: int, output: RouterOutput, gate: Operator) -> Cells:
        """The weights that the plans make of what a router says; see the top of this file.

        Args:
            layer: the decoder block.
            output: the router's.
            gate: the router's own way from logits to weights.
        """
        logits, weights = output.logits, output.weights
        for step in self.logit_steps:
            logits = step.run(layer, logits)
        if logits is not output.logits:
            changed = (logits != output.logits).any(dim=-1, keepdim=True)
            weights = torch.where(changed, gate(logits).to(weights.dtype), weights)
        for step in self.weight_steps:
            weights = step.run(layer, weights)
        return weights


def compile_plans(
    plans: Sequence[RoutingPlan | None],
    *,
    experts: tuple[str, ...],
    num_layers: int,
    tokens: TokenBatch,
) -> CompiledPlan | None:
    """Check plans against a bank and get them ready for one forward pass.

    Args:
        plans: one a row of the batch; None leaves that row alone.
        experts: the bank's expert names, in order.
        num_layers: decoder blocks of the model.
        tokens: the tokens of this pass.

    Returns:
        None if no plan asks for anything.

    Raises:
        PlanError: a plan does not fit the bank, or has a scope that only its text can settle.
    """
    steps: dict[bool, list[_Step]] = {True: [], False: []}
    for plan in {id(plan): plan for plan in plans if plan}.values():
        check_plan(plan, experts=experts, num_layers=num_layers)
    for place in range(max((len(plan.overrides) for plan in plans if plan), default=0)):
        for (verb, *_), rows in _alike(plans, place).items():
            steps[verb in LOGIT_OPERATIONS].append(_compile(rows, experts, tokens))
    if not (steps[True] or steps[False]):
        return None
    return CompiledPlan(tuple(steps[True]), tuple(steps[False]))


_SETS = ("pin", "solo", "uniform", "bypass")
_MULTIPLIES = ("ban", "boost")


def _alike(
    plans: Sequence[RoutingPlan | None], place: int
) -> dict[tuple[object, ...], dict[int, Override]]:
    """The overrides at one place of each row's plan, by row, where one operation serves them."""
    groups: dict[tuple[object, ...], dict[int, Override]] = {}
    for row, plan in enumerate(plans):
        if plan is None or place >= len(plan.overrides) or not plan.overrides[place].strength:
            continue
        one = plan.overrides[place]
        operation = one.operation
        verb = "set" if operation in _SETS else "times" if operation in _MULTIPLIES else operation
        count = one.value if verb == "top_k" else None
        renormalise = verb in ("times", "top_k") and one.renormalise
        groups.setdefault((verb, one.layers, renormalise, count), {})[row] = one
    return groups


def _compile(rows: dict[int, Override], experts: tuple[str, ...], tokens: TokenBatch) -> _Step:
    batch, device = tokens.ids.shape[0], tokens.ids.device
    every = len(rows) == batch and all(one.tokens == "all" for one in rows.values())
    strengths = [rows[row].strength if row in rows else 1.0 for row in range(batch)]
    partial = any(strength != 1 for strength in strengths)
    return _Step(
        layers=next(iter(rows.values())).layers,
        where=None if every else _where(rows, tokens)[..., None],
        operator=_operator(rows, experts, batch, device),
        strength=torch.tensor(strengths, device=device)[:, None, None] if partial else None,
    )


def _where(rows: dict[int, Override], tokens: TokenBatch) -> Bool[Tensor, "batch seq"]:
    where = torch.zeros_like(tokens.is_token)
    for row, override in rows.items():
        where[row] = _token_mask(override, tokens, row)
    return where


def _token_mask(override: Override, tokens: TokenBatch, row: int) -> Bool[Tensor, " seq"]:
    steps = tokens.steps[row]
    match override.tokens:
        case "all":
            return torch.ones_like(tokens.is_token[row])
        case "prompt":
            return steps < 0
        case "generated":
            return steps >= 0
        case Steps(steps=wanted):
            return _among(steps, wanted)
        case tuple() | Span() as wanted:
            return _among(tokens.positions[row], wanted) & tokens.is_token[row]
        case _:
            raise PlanError(
                f"{override!r} is about the tokens' texts, which a forward pass does not know; "
                "run it through a Studio, or settle the plan with PlanRow first."
            )


def _among(values: Tensor, wanted: tuple[int, ...] | Span) -> Bool[Tensor, " seq"]:
    if isinstance(wanted, Span):
        inside = values >= wanted.start
        return inside if wanted.stop is None else inside & (values < wanted.stop)
    return torch.isin(values, torch.tensor(wanted, device=values.device))


def _operator(
    rows: dict[int, Override], experts: tuple[str, ...], batch: int, device: torch.device
) -> Operator:
    """What the overrides of these rows do; rows without one get something harmless."""
    one = next(iter(rows.values()))
    match one.operation:
        case "top_k":
            return _top_k(int(one.value or 1), one.renormalise)
        case "temperature":
            values = [[rows[row].value if row in rows else 1.0] for row in range(batch)]
            divisor = torch.tensor(values, device=device)[:, None]
            return lambda logits: logits / divisor
        case operation:
            table = [_values(rows.get(row), experts) for row in range(batch)]
            values = torch.tensor(table, device=device)[:, None]
    if operation == "bias":
        return lambda logits: logits + values
    if operation not in _MULTIPLIES:
        return lambda weights: values.to(weights.dtype).expand_as(weights)
    if one.renormalise:
        return lambda weights: _keep_sum(weights * values, weights)
    return lambda weights: weights * values


def _values(override: Override | None, experts: tuple[str, ...]) -> list[float]:
    """One number an expert: the weight to set, the factor, or what to add."""
    if override is None:
        return [0.0] * len(experts)
    weights, neutral = override.weights, 0.0
    if override.operation in _MULTIPLIES:
        neutral = 1.0
    elif override.operation == "uniform":
        weights = weights or dict.fromkeys(experts, 1.0)
    if override.operation == "uniform" or (override.operation == "pin" and override.renormalise):
        total = sum(weights.values())
        weights = {name: weight / total for name, weight in weights.items()}
    return [weights.get(name, neutral) for name in experts]


def _top_k(count: int, renormalise: bool) -> Operator:
    def keep(weights: Cells) -> Cells:
        if count >= weights.shape[-1]:
            return weights
        kept = torch.zeros_like(weights)
        largest = weights.abs().topk(count, dim=-1).indices
        kept = kept.scatter(-1, largest, weights.gather(-1, largest))
        return _keep_sum(kept, weights) if renormalise else kept

    return keep


def _keep_sum(weights: Cells, before: Cells) -> Cells:
    """Scale to the sum of magnitudes there was; where nothing is left, nothing stays."""
    total = weights.abs().sum(dim=-1, keepdim=True)
    empty = total < _NOTHING
    ratio = before.abs().sum(dim=-1, keepdim=True) / total.masked_fill(empty, 1)
    return weights * ratio.masked_fill(empty, 0)
