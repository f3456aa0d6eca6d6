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
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lmoe_studio.routing.check import check_plan
from lmoe_studio.routing.plan import (
    LOGIT_OPERATIONS,
    Override,
    RoutingPlan,
    Span,
)
from lmoe_studio.routing.router import RouterOutput, TokenBatch
from lmoe_studio.routing.token_masks import token_mask

Cells = Float[Tensor, "batch seq expert"]
Operator = Callable[[Cells], Cells]
_NOTHING = 1e-20  # a sum of weights below this is none


@dataclass(frozen=True)
class _Step:
    """One override, or several of different rows, ready to run."""

    verb: str
    """What it does: an operation's name, or `set` or `times` for those that come to the same."""
    layers: tuple[int, ...] | Span | None
    renormalise: bool
    keeps: int | None
    """How many, of `top_k`."""
    where: Bool[Tensor, "batch seq 1"] | None
    """Which tokens; None for all of them."""
    values: Float[Tensor, "batch 1 value"] | None
    """One an expert, or one for all; None for `top_k`. Rows without the override get harmless ones."""
    strength: Float[Tensor, "batch 1 1"] | None
    """None for 1 throughout."""

    @property
    def shape(self) -> tuple[object, ...]:
        """All of it but what the tensors hold."""
        absent = self.where is None, self.values is None, self.strength is None
        return self.verb, self.layers, self.renormalise, self.keeps, *absent

    @property
    def tensors(self) -> list[Tensor]:
        return [one for one in (self.where, self.values, self.strength) if one is not None]

    def settles(self, layer: int) -> bool:
        """Whether every token has the same weights after it, whatever they were before."""
        if self.values is None or self.where is not None or self.strength is not None:
            return False
        here = self.layers is None or layer in self.layers
        return here and (self.verb == "set" or (self.verb == "times" and not self.values.any()))

    def run(self, layer: int, cells: Cells) -> Cells:
        if self.layers is not None and layer not in self.layers:
            return cells
        changed = self._change(cells)
        if self.strength is not None:
            changed = torch.lerp(cells, changed, self.strength.to(cells.dtype))
        return changed if self.where is None else torch.where(self.where, changed, cells)

    def _change(self, cells: Cells) -> Cells:
        if self.values is None:
            return _top_k(cells, int(self.keeps or 1), self.renormalise)
        match self.verb:
            case "set":
                return self.values.to(cells.dtype).expand_as(cells)
            case "temperature":
                return cells / self.values
            case "bias":
                return cells + self.values
            case _:
                changed = cells * self.values
                return _keep_sum(changed, cells) if self.renormalise else changed


@dataclass(frozen=True)
class CompiledPlan:
    """The steps of a batch's plans, in order."""

    logit_steps: tuple[_Step, ...]
    weight_steps: tuple[_Step, ...]

    def apply(self, layer: int, output: RouterOutput) -> Cells:
        """The weights that the plans make of what a router says; see the top of this file.

        Args:
            layer: the decoder block.
            output: the router's.
        """
        logits, weights = output.logits, output.weights
        for step in self.logit_steps:
            logits = step.run(layer, logits)
        if logits is not output.logits:
            changed = (logits != output.logits).any(dim=-1, keepdim=True)
            weights = torch.where(changed, output.gate(logits).to(weights.dtype), weights)
        for step in self.weight_steps:
            weights = step.run(layer, weights)
        return weights

    def settles(self, layer: int) -> bool:
        """Whether nothing is left to the router in a layer: one step settles the weights for all.

        What later steps do to them is then the same for every token, as long as they are about all.
        """
        return any(step.settles(layer) for step in self.weight_steps)

    @property
    def shape(self) -> tuple[tuple[object, ...], ...]:
        """What it does, apart from the numbers: where two agree, one can take the other's."""
        return tuple(step.shape for step in (*self.logit_steps, *self.weight_steps))

    def take_numbers(self, other: "CompiledPlan") -> None:
        """Write those of another plan of the same shape into this one's tensors."""
        mine = (*self.logit_steps, *self.weight_steps)
        for step, new in zip(mine, (*other.logit_steps, *other.weight_steps), strict=True):
            for tensor, value in zip(step.tensors, new.tensors, strict=True):
                tensor.copy_(value)


def compile_plans(
    plans: Sequence[RoutingPlan | None],
    *,
    experts: tuple[str, ...],
    num_layers: int,
    tokens: TokenBatch,
    roomy: bool = False,
) -> CompiledPlan | None:
    """Check plans against a bank and get them ready for one forward pass.

    Args:
        plans: one a row of the batch; None leaves that row alone.
        experts: the bank's expert names, in order.
        num_layers: decoder blocks of the model.
        tokens: the tokens of this pass.
        roomy: keep a place for every number, also for what changes nothing (strength 0 or 1, all
            tokens), so that plans that differ in numbers only have one shape.

    Returns:
        None if no plan asks for anything.

    Raises:
        PlanError: a plan does not fit the bank, or has a scope that only its text can settle.
    """
    steps: dict[bool, list[_Step]] = {True: [], False: []}
    for plan in {id(plan): plan for plan in plans if plan}.values():
        check_plan(plan, experts=experts, num_layers=num_layers)
    for place in range(max((len(plan.overrides) for plan in plans if plan), default=0)):
        for alike, rows in _alike(plans, place, roomy).items():
            step = _compile(alike, rows, experts, tokens, roomy)
            steps[alike.verb in LOGIT_OPERATIONS].append(step)
    if not (steps[True] or steps[False]):
        return None
    return CompiledPlan(tuple(steps[True]), tuple(steps[False]))


_SETS = ("pin", "solo", "uniform", "bypass")
_MULTIPLIES = ("ban", "boost")


class _Alike(NamedTuple):
    """What overrides of different rows have in common that run as one operation."""

    verb: str
    layers: tuple[int, ...] | Span | None
    renormalise: bool
    keeps: int | None


def _alike(
    plans: Sequence[RoutingPlan | None], place: int, roomy: bool
) -> dict[_Alike, dict[int, Override]]:
    """The overrides at one place of each row's plan, by row, where one operation serves them."""
    groups: dict[_Alike, dict[int, Override]] = {}
    for row, plan in enumerate(plans):
        if plan is None or place >= len(plan.overrides):
            continue
        one = plan.overrides[place]
        if not (one.strength or roomy):
            continue
        operation = one.operation
        verb = "set" if operation in _SETS else "times" if operation in _MULTIPLIES else operation
        keeps = int(one.value or 1) if verb == "top_k" else None
        renormalise = verb in ("times", "top_k") and one.renormalise
        groups.setdefault(_Alike(verb, one.layers, renormalise, keeps), {})[row] = one
    return groups


def _compile(
    alike: _Alike,
    rows: dict[int, Override],
    experts: tuple[str, ...],
    tokens: TokenBatch,
    roomy: bool,
) -> _Step:
    batch, device = tokens.ids.shape[0], tokens.ids.device
    every = len(rows) == batch and all(one.tokens == "all" for one in rows.values()) and not roomy
    strengths = [rows[row].strength if row in rows else 1.0 for row in range(batch)]
    partial = roomy or any(strength != 1 for strength in strengths)
    table = [_values(rows.get(row), alike.verb, experts) for row in range(batch)]
    return _Step(
        *alike,
        where=None if every else _where(rows, tokens)[..., None],
        values=None if alike.verb == "top_k" else torch.tensor(table, device=device)[:, None],
        strength=torch.tensor(strengths, device=device)[:, None, None] if partial else None,
    )


def _where(rows: dict[int, Override], tokens: TokenBatch) -> Bool[Tensor, "batch seq"]:
    where = torch.zeros_like(tokens.is_token)
    for row, override in rows.items():
        where[row] = token_mask(override.tokens, tokens, row, asked_by=override)
    return where


def _values(override: Override | None, verb: str, experts: tuple[str, ...]) -> list[float]:
    """One number an expert: the weight to set, the factor, or what to add; or one to divide by."""
    if verb == "temperature":
        return [override.value or 1.0 if override else 1.0]
    neutral = 1.0 if verb == "times" else 0.0
    if override is None:
        return [neutral] * len(experts)
    weights = override.weights
    if override.operation == "uniform":
        weights = weights or dict.fromkeys(experts, 1.0)
    if override.operation == "uniform" or (override.operation == "pin" and override.renormalise):
        total = sum(weights.values())
        weights = {name: weight / total for name, weight in weights.items()}
    return [weights.get(name, neutral) for name in experts]


def _top_k(weights: Cells, count: int, renormalise: bool) -> Cells:
    if count >= weights.shape[-1]:
        return weights
    kept = torch.zeros_like(weights)
    largest = weights.abs().topk(count, dim=-1).indices
    kept = kept.scatter(-1, largest, weights.gather(-1, largest))
    return _keep_sum(kept, weights) if renormalise else kept


def _keep_sum(weights: Cells, before: Cells) -> Cells:
    """Scale to the sum of magnitudes there was; where nothing is left, nothing stays."""
    total = weights.abs().sum(dim=-1, keepdim=True)
    empty = total < _NOTHING
    ratio = before.abs().sum(dim=-1, keepdim=True) / total.masked_fill(empty, 1)
    return weights * ratio.masked_fill(empty, 0)
