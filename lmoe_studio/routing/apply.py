"""Plans become weights: compiled once a call, applied in every layer, no state.

Plans are per row: a batch may carry another plan on each row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lmoe_studio.errors import PlanError, did_you_mean
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.router import TokenBatch

Weights = Float[Tensor, "batch seq expert"]
Operator = Callable[[Weights], Weights]


@dataclass(frozen=True)
class _Step:
    """One override, ready to run on some rows of the batch."""

    layers: frozenset[int] | None
    where: Bool[Tensor, "batch seq 1"] | None
    """Which tokens; None for all of them."""
    operator: Operator
    strength: float


@dataclass(frozen=True)
class CompiledPlan:
    """The steps of a batch's plans, in order."""

    steps: tuple[_Step, ...]

    def apply(self, layer: int, weights: Weights) -> Weights:
        """The weights that the plans make of a router's. Untouched cells stay bit-equal."""
        for step in self.steps:
            if step.layers is not None and layer not in step.layers:
                continue
            changed = step.operator(weights)
            if step.strength < 1:
                changed = torch.lerp(weights, changed, step.strength)
            weights = changed if step.where is None else torch.where(step.where, changed, weights)
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
        PlanError: an unknown expert or a layer that does not exist, naming the override.
    """
    steps = []
    distinct: list[RoutingPlan] = []
    for plan in plans:
        if plan and plan not in distinct:
            distinct.append(plan)
    for plan in distinct:
        rows = torch.tensor([other == plan for other in plans], device=tokens.ids.device)
        for number, override in enumerate(plan.overrides, start=1):
            _check(override, number, experts, num_layers)
            if override.strength > 0:
                steps.append(_compile(override, experts, tokens, rows))
    return CompiledPlan(tuple(steps)) if steps else None


def _compile(
    override: Override, experts: tuple[str, ...], tokens: TokenBatch, rows: Bool[Tensor, " batch"]
) -> _Step:
    where = _token_mask(override, tokens) & rows[:, None]
    return _Step(
        layers=None if override.layers is None else frozenset(override.layers),
        where=None if bool(where.all()) else where[..., None],
        operator=_operator(override, experts, tokens.ids.device),
        strength=override.strength,
    )


def _token_mask(override: Override, tokens: TokenBatch) -> Bool[Tensor, "batch seq"]:
    match override.tokens:
        case "all":
            return torch.ones_like(tokens.generated)
        case "prompt":
            return ~tokens.generated
        case "generated":
            return tokens.generated
        case positions:
            wanted = torch.tensor(positions, device=tokens.ids.device)
            return torch.isin(tokens.positions, wanted) & tokens.is_token


def _operator(override: Override, experts: tuple[str, ...], device: torch.device) -> Operator:
    count = len(experts)
    neutral = 1.0 if override.operation in ("ban", "boost") else 0.0
    values = torch.tensor([override.weights.get(name, neutral) for name in experts], device=device)
    match override.operation:
        case "pin" | "solo":
            return lambda weights: values.expand_as(weights)
        case "uniform":
            return lambda weights: torch.full_like(weights, 1 / count)
        case "bypass":
            return torch.zeros_like
        case "ban" | "boost":
            if override.renormalise:
                return lambda weights: _keep_sum(weights * values, weights)
            return lambda weights: weights * values


def _keep_sum(weights: Weights, before: Weights) -> Weights:
    """Scale to the sum there was; where nothing is left, nothing stays: the base model."""
    total = weights.sum(dim=-1, keepdim=True)
    empty = total.abs() < 1e-12
    ratio = before.sum(dim=-1, keepdim=True) / total.masked_fill(empty, 1)
    return weights * ratio.masked_fill(empty, 0)


def _check(override: Override, number: int, experts: tuple[str, ...], num_layers: int) -> None:
    for name in override.weights:
        if name not in experts:
            known = did_you_mean(name, experts)
            raise PlanError(
                f"Override {number} ({override.operation}) names no expert of this bank: "
                f"'{name}'; {known}"
            )
    for layer in override.layers or ():
        if not 0 <= layer < num_layers:
            raise PlanError(
                f"Override {number} ({override.operation}) names layer {layer}; this model has "
                f"layers 0 to {num_layers - 1}."
            )
