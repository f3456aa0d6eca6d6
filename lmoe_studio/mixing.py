"""What one forward pass carries along: its call, and the weights that its bank layers ask for."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lmoe_studio.architecture import reads_the_past
from lmoe_studio.base_pass import AskedPass
from lmoe_studio.config import Composition
from lmoe_studio.errors import BaseModelError
from lmoe_studio.experts.layer import CurrentMixing, LoRABankLinear, SharedInput
from lmoe_studio.experts.layout import RankLayout, RankWeights
from lmoe_studio.experts.rows import TokenRows
from lmoe_studio.routing.apply import CompiledPlan
from lmoe_studio.routing.router import Router, RouterOutput, TokenBatch


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

    @classmethod
    def join(cls, parts: Sequence["RoutingRecord"]) -> "RoutingRecord":
        """Of passes over parts of a text, in order."""
        joined: dict[str, Any] = {
            one.name: torch.cat([getattr(part, one.name) for part in parts], dim=1)
            for one in fields(cls)
            if getattr(parts[0], one.name) is not None
        }
        return cls(**{"contributions": None, **joined})


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
    past: Mapping[str, Tensor] = field(default_factory=dict)
    """Of layers that read the past again, the weights it was read under; see `PastWeights`."""
    read: dict[str, Tensor] = field(default_factory=dict)
    """The same with the tokens of this pass."""

    def with_past(self, layer: str, weights: Tensor) -> Tensor:
        """The weights of all tokens that a layer reads, the past ones first."""
        before = self.past.get(layer)
        if before is not None and len(before) == len(weights):
            weights = torch.cat([before, weights], dim=1)
        self.read[layer] = weights
        return weights

    def settle(self, site: int, layer: int, output: RouterOutput, router: nn.Module) -> Tensor:
        """The weights to apply at a site, noted down if somebody asked."""
        weights = output.weights
        if self.pinned is not None:
            weights = self.pinned[:, :, site].to(weights)
        elif self.plan is not None:
            weights = self.plan.apply(layer, output, cast(Router, router).gate)
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


class BlockMixing:
    """The weights of one block in one forward pass: what its bank layers ask for.

    Kept by a checkpointed block until the backward pass has recomputed it.
    """

    def __init__(
        self,
        call: Call,
        weights: Tensor | None,
        route: Callable[[Call, LoRABankLinear, Tensor], tuple[int, Tensor]] | None,
        site: int = 0,
    ) -> None:
        self._call = call
        self._weights = weights
        self._route = route
        self._site = site
        # Most layers of a block share a layout, and read one row a token.
        self._expanded: dict[tuple[RankLayout, TokenRows], RankWeights] = {}
        self._read: dict[SharedInput, _Reading] = {}

    def fresh(self) -> "BlockMixing":
        """The same weights with nothing computed yet: a recomputation must repeat every step."""
        return BlockMixing(self._call, self._weights, self._route, self._site)

    def mixed(self, layer: LoRABankLinear, x: Tensor) -> Tensor:
        rows = self._rows(layer, x)
        mixed = self._part(layer, x, rows)
        if self._route is not None:
            expanded = layer.layout.expand(self.weights(layer, x), self._call.composition)
            mixed = layer.layout.mix(mixed, expanded)
        squares = self._call.squares
        if squares is not None:
            norms = rows.gather(layer.update_norms(mixed))[:, -self._call.tokens.ids.shape[1] :]
            seen = squares.get(self._site)
            squares[self._site] = norms if seen is None else seen + norms
        return mixed

    def weights(self, layer: LoRABankLinear, x: Tensor) -> Tensor:
        rows = self._rows(layer, x)
        if self._route is not None:
            new = rows.first(x)[:, -self._call.tokens.ids.shape[1] :]
            self._site, weights = self._route(self._call, layer, new)
        else:
            assert self._weights is not None
            weights = self._weights
        return rows.spread(self._of_all(layer, weights, rows))

    def _of_all(self, layer: LoRABankLinear, weights: Tensor, rows: TokenRows) -> Tensor:
        """Of all tokens that a layer reads, from those of this pass."""
        if not reads_the_past(layer.name):
            return weights
        weights = self._call.with_past(layer.name, weights)
        if weights.shape[1] != rows.seq:
            raise BaseModelError(
                f"{layer.name} of this base model reads {rows.seq} tokens again under a cache that was "
                "not filled here; let the same model read the whole text, without beams."
            )
        return weights

    def _rows(self, layer: LoRABankLinear, x: Tensor) -> TokenRows:
        batch, seq = self._call.tokens.ids.shape
        if reads_the_past(layer.name):
            seq = x.shape[:-1].numel() // batch
        rows = TokenRows.of(x, batch, seq)
        if rows is None:
            raise BaseModelError(
                f"{layer.name} of this base model reads {list(x.shape)} in a pass over {batch} texts of "
                f"{seq} tokens, so that nobody can tell which row is of which token; leave that "
                f"layer out (leave_out, --leave-out {layer.name.rsplit('.', 1)[-1]})."
            )
        return rows

    def _part(self, layer: LoRABankLinear, x: Tensor, rows: TokenRows) -> Tensor:
        """This layer's part of what is computed once for all readers of `x`.

        Weighted already, unless each layer has weights of its own.
        """
        source = layer.source
        reading = self._read.get(source)
        if reading is None or reading.x is not x:
            expand = partial(self._expand, layer, rows)
            parts = source.project(x) if self._route else source.mix(x, expand)
            if len(parts) == 1:
                return parts[0]
            reading = self._read[source] = _Reading(x, parts, len(parts))
        reading.left -= 1
        if not reading.left:
            del self._read[source]  # so that nothing outlives its last reader
        return reading.parts[layer.place]

    def _expand(self, layer: LoRABankLinear, rows: TokenRows, layout: RankLayout) -> RankWeights:
        found = self._expanded.get((layout, rows))
        if found is None or reads_the_past(layer.name):
            assert self._weights is not None
            weights = rows.spread(self._of_all(layer, self._weights, rows))
            found = layout.expand(weights, self._call.composition)
            self._expanded[layout, rows] = found
        return found


@dataclass
class _Reading:
    """What several bank layers get from the one tensor that they read."""

    x: Tensor
    parts: tuple[Tensor, ...]
    left: int
    """Layers that have not asked yet."""
