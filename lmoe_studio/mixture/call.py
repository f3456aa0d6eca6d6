"""What one forward pass carries along: its tokens, what to change, and what was seen."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lmoe_studio.config import Composition
from lmoe_studio.experts.layer import CurrentMixing
from lmoe_studio.mixture.base_pass import AskedPass
from lmoe_studio.mixture.past import Memory
from lmoe_studio.routing.apply import CompiledPlan
from lmoe_studio.routing.router import Reading, RouterOutput, TokenBatch


@dataclass(frozen=True)
class RoutingRecord:
    """What the routers said and what was applied in one forward pass; part of the graph."""

    logits: Float[Tensor, "batch seq site expert"]
    probs: Float[Tensor, "batch seq site expert"]
    router_weights: Float[Tensor, "batch seq site expert"]
    """The routers' own, before a plan."""
    weights: Float[Tensor, "batch seq site expert"]
    """What was applied."""
    contributions: Float[Tensor, "batch seq site expert"] | None
    """Norm of the update that each expert added, over all linear layers of a site."""
    notes: Mapping[str, Tensor] = field(default_factory=dict)
    """`[batch, seq, site, …]` each: what the routers noted about each token."""

    def each(self, change: Callable[[Tensor], Tensor]) -> "RoutingRecord":
        """With every tensor changed."""
        return self.join([self], lambda parts: change(parts[0]))

    @classmethod
    def join(
        cls,
        parts: Sequence["RoutingRecord"],
        together: Callable[[list[Tensor]], Tensor] = lambda parts: torch.cat(parts, dim=1),
    ) -> "RoutingRecord":
        """Of passes over parts of a text, in order.

        Args:
            parts: of the text.
            together: makes one tensor of those of the parts.
        """
        first = parts[0]
        joined = {
            one.name: together([getattr(part, one.name) for part in parts])
            for one in fields(cls)
            if isinstance(getattr(first, one.name), Tensor)
        }
        notes = {name: together([part.notes[name] for part in parts]) for name in first.notes}
        return cls(**{"contributions": None, **joined, "notes": notes})


@dataclass
class Call:
    """One forward pass: its tokens, what to change, and what was seen."""

    tokens: TokenBatch
    composition: Composition
    plan: CompiledPlan | None
    pinned: Tensor | None
    outputs: dict[int, tuple[RouterOutput, Tensor]] | None
    squares: dict[int, Tensor] | None
    shared: RouterOutput | None = None
    past: Memory = field(default_factory=dict)
    """What was kept of the tokens before these."""
    kept: Memory = field(default_factory=dict)
    """The same with the tokens of this pass."""
    computed: dict[str, Any] = field(default_factory=dict)
    """See `Reading`."""

    def with_past(self, layer: str, weights: Tensor) -> Tensor:
        """The weights of all tokens that a layer reads, the past ones first."""
        before = self.past.get(layer, {}).get("weights")
        if before is not None and len(before) == len(weights):
            weights = torch.cat([before, weights], dim=1)
        self.kept[layer] = {"weights": weights}
        return weights

    def route(self, router: nn.Module, place: str, layer: int, hidden: Tensor) -> RouterOutput:
        """What a router says at a place, from what it reads there."""
        reading = Reading(
            hidden.float(), self.tokens, layer, self.past.get(place, {}), self.computed
        )
        output: RouterOutput = router(reading)
        if output.keep:
            self.kept[place] = output.keep
        return output

    def settle(self, site: int, layer: int, output: RouterOutput) -> Tensor:
        """The weights to apply at a site, noted down if somebody asked."""
        weights = output.weights
        if self.pinned is not None:
            weights = self.pinned[:, :, site].to(weights)
        elif self.plan is not None:
            weights = self.plan.apply(layer, output)
        if self.outputs is not None and site not in self.outputs:
            self.outputs[site] = (output, weights)
        return weights

    def record(self) -> RoutingRecord | None:
        if self.outputs is None:
            return None
        seen = [self.outputs[site] for site in range(len(self.outputs))]
        return RoutingRecord(
            logits=torch.stack([output.logits for output, _ in seen], dim=2),
            probs=torch.stack([output.probs for output, _ in seen], dim=2),
            router_weights=torch.stack([output.weights for output, _ in seen], dim=2),
            weights=torch.stack([weights for _, weights in seen], dim=2),
            contributions=self._contributions(),
            notes={
                name: torch.stack([output.notes[name] for output, _ in seen], dim=2)
                for name in seen[0][0].notes
            },
        )

    def _contributions(self) -> Tensor | None:
        if self.squares is None:
            return None
        return torch.stack([self.squares[i] for i in range(len(self.squares))], dim=2).sqrt()


class Current(CurrentMixing):
    """What this thread is in the middle of."""

    call: Call | None = None
    opened: AbstractContextManager[Call] | None = None
    """The same, where a pass of the base model itself began it."""
    steer: Callable[[AskedPass], tuple[TokenBatch, CompiledPlan | None]] | None = None
    """Asked before each of those."""
