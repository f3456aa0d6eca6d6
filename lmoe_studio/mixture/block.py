"""The weights of one block in one forward pass."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from lmoe_studio.architecture import reads_the_past
from lmoe_studio.errors import BaseModelError
from lmoe_studio.experts.layer import Reader, Source
from lmoe_studio.experts.layout import RankLayout, RankWeights
from lmoe_studio.experts.rows import TokenRows
from lmoe_studio.mixture.call import Call


class BlockMixing:
    """The weights of one block in one forward pass: what its bank layers ask for.

    Kept by a checkpointed block until the backward pass has recomputed it.
    """

    def __init__(
        self,
        call: Call,
        weights: Tensor | None,
        route: Callable[[Call, str, Tensor], tuple[int, Tensor]] | None,
        site: int = 0,
    ) -> None:
        self._call = call
        self._weights = weights
        self._route = route
        self._site = site
        # Most layers of a block share a layout, and read one row a token.
        self._expanded: dict[tuple[RankLayout, TokenRows], RankWeights] = {}
        self._read: dict[Source, _Reading] = {}

    def fresh(self) -> "BlockMixing":
        """The same weights with nothing computed yet: a recomputation must repeat every step."""
        return BlockMixing(self._call, self._weights, self._route, self._site)

    def mixed(self, layer: Reader, x: Tensor) -> Tensor:
        rows = self._rows(layer.name, x)
        mixed = self._part(layer, x, rows)
        if self._route is not None:
            expanded = layer.layout.expand(self.weights(layer.name, x), self._call.composition)
            mixed = layer.layout.mix(mixed, expanded)
        squares = self._call.squares
        if squares is not None:
            norms = rows.gather(layer.update_norms(mixed))[:, -self._call.tokens.ids.shape[1] :]
            seen = squares.get(self._site)
            squares[self._site] = norms if seen is None else seen + norms
        return mixed

    def weights(self, name: str, x: Tensor) -> Tensor:
        rows = self._rows(name, x)
        if self._route is not None:
            new = rows.first(x)[:, -self._call.tokens.ids.shape[1] :]
            self._site, weights = self._route(self._call, name, new)
        else:
            assert self._weights is not None
            weights = self._weights
        return rows.spread(self._of_all(name, weights, rows))

    def _of_all(self, name: str, weights: Tensor, rows: TokenRows) -> Tensor:
        """Of all tokens that a layer reads, from those of this pass."""
        if not reads_the_past(name):
            return weights
        weights = self._call.with_past(name, weights)
        if weights.shape[1] != rows.seq:
            raise BaseModelError(
                f"{name} of this base model reads {rows.seq} tokens again under a cache that was "
                "not filled here; let the same model read the whole text, without beams."
            )
        return weights

    def _rows(self, name: str, x: Tensor) -> TokenRows:
        batch, seq = self._call.tokens.ids.shape
        if reads_the_past(name):
            seq = x.shape[:-1].numel() // batch
        rows = TokenRows.of(x, batch, seq)
        if rows is None:
            raise BaseModelError(
                f"{name} of this base model reads {list(x.shape)} in a pass over {batch} texts of "
                f"{seq} tokens, so that nobody can tell which row is of which token; leave that "
                f"layer out (leave_out, --leave-out {name.rsplit('.', 1)[-1]})."
            )
        return rows

    def _part(self, layer: Reader, x: Tensor, rows: TokenRows) -> Tensor:
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

    def _expand(self, layer: Reader, rows: TokenRows, layout: RankLayout) -> RankWeights:
        found = self._expanded.get((layout, rows))
        if found is None or reads_the_past(layer.name):
            assert self._weights is not None
            weights = rows.spread(self._of_all(layer.name, self._weights, rows))
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
