"""RoutingTrace: what one run did, token by token, as plain numpy arrays and names (no torch)."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
_CELLS = ("router_logits", "router_probs", "router_weights", "routing_weights", "overridden")
_POSITIONS = ("generated", "special", "logprobs", "ranks", "entropies")
_PER_POSITION = ("tokens", "alternative_ids", "alternative_logprobs", "alternative_tokens")


@dataclass(frozen=True, eq=False)
class RoutingTrace:
    """One sequence's routing, as it was applied.

    Axes: `position` in the sequence; `site`, a place where a router decides; `expert` in the
    bank's order. With router scope "layer" or "shared" there is one site a decoder block, so
    `[position, site, expert]` reads `[position, layer, expert]`; with scope "module" there is
    one site for each target linear of each block.
    """

    run: str
    """Name of the run, unique enough to tell two traces apart."""
    bank: str
    base: str
    experts: tuple[str, ...]
    site_layers: tuple[int, ...]
    """Decoder block of each site."""
    site_modules: tuple[str, ...] | None
    """Target linear of each site; None unless the router's scope is "module"."""

    token_ids: NDArray[np.int32]
    """`[position]`"""
    tokens: tuple[str, ...]
    """The text that each token adds; an incomplete character shows as U+FFFD."""
    generated: NDArray[np.bool_]
    """`[position]`: False for the prompt, True for what the model wrote."""
    special: NDArray[np.bool_]
    """`[position]`: the tokenizer's special tokens (beginning of text, chat marks)."""

    router_logits: FloatArray
    """`[position, site, expert]`: the router's scores."""
    router_probs: FloatArray
    """`[position, site, expert]`: their softmax (or sigmoid), before top-k and plan."""
    router_weights: FloatArray
    """`[position, site, expert]`: the weights that the router alone makes of them, after top-k.

    The same array as `routing_weights` where no plan changed anything. NaN where a plan did and
    the file, of an earlier release, does not tell.
    """
    routing_weights: FloatArray
    """`[position, site, expert]`: what each expert's update was multiplied by."""
    overridden: NDArray[np.bool_]
    """`[position, site, expert]`: True where a plan changed the router's own weight."""

    logprobs: FloatArray
    """`[position]`: natural log-probability of each token given those before; NaN for the first."""
    ranks: NDArray[np.int32]
    """`[position]`: 1 if the token was the most likely one; 0 for the first position."""
    entropies: FloatArray
    """`[position]`: entropy in nats of the distribution the token was drawn from; NaN first."""
    alternative_ids: NDArray[np.int32]
    """`[position, k]`: the k most likely tokens for this position, best first; -1 for the first."""
    alternative_logprobs: FloatArray
    """`[position, k]`; NaN for the first position."""
    alternative_tokens: tuple[tuple[str, ...], ...]
    """`[position][k]`: their texts; empty strings for the first position."""

    contributions: FloatArray | None = None
    """`[position, site, expert]`: norm of the update each expert added, over a site's linears."""
    notes: dict[str, NDArray[Any]] = field(default_factory=dict)
    """`[position, site, …]` each: what the router noted about each token, such as its threshold."""
    router: str | None = None
    """The router's settings as JSON; None in files of earlier releases."""
    plan: str | None = None
    """The routing plan as JSON; None where the router was left alone."""
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError where the fields do not fit each other, as in a damaged file."""
        positions, sites = len(self.token_ids), len(self.site_layers)
        cells = (positions, sites, len(self.experts))
        shapes: dict[str, tuple[int, ...]] = {
            **dict.fromkeys(_CELLS, cells),
            **dict.fromkeys(_POSITIONS, (positions,)),
        }
        if self.contributions is not None:
            shapes["contributions"] = cells
        for name, expected in shapes.items():
            shape = getattr(self, name).shape
            if shape != expected:
                raise ValueError(f"{name} has shape {shape}, not {expected}")
        for name, values in self.notes.items():
            if values.shape[:2] != cells[:2]:
                raise ValueError(f"note {name} has shape {values.shape}, not {cells[:2]} and more")
        lengths: dict[str, int] = {**dict.fromkeys(_PER_POSITION, positions)}
        if self.site_modules is not None:
            lengths["site_modules"] = sites
        for name, expected in lengths.items():
            length = len(getattr(self, name))
            if length != expected:
                raise ValueError(f"{name} has {length} entries, not {expected}")
        alternatives = {self.alternative_ids.shape, self.alternative_logprobs.shape}
        texts = {(positions, len(row)) for row in self.alternative_tokens}
        if len(alternatives | texts) > 1:
            raise ValueError("the ids, log-probabilities and texts of the alternatives do not fit")

    def __len__(self) -> int:
        return len(self.token_ids)

    def __eq__(self, other: object) -> bool:
        """Equal to the last bit, NaN equal to NaN."""
        return isinstance(other, RoutingTrace) and all(
            _same(getattr(self, item.name), getattr(other, item.name)) for item in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def num_layers(self) -> int:
        return len(set(self.site_layers))

    def first(self, count: int) -> Self:
        """The trace of its first positions alone."""
        names = ("token_ids", *_CELLS, *_POSITIONS, *_PER_POSITION, "contributions")
        cut = {n: getattr(self, n)[:count] for n in names if getattr(self, n) is not None}
        notes = {name: values[:count] for name, values in self.notes.items()}
        return replace(self, **cut, notes=notes)

    def by_layer(self, values: NDArray[Any]) -> FloatArray:
        """`[position, site, expert]` averaged over the sites of each block: `[position, layer, …]`.

        The identity (no copy) unless the router's scope is "module".
        """
        if self.site_modules is None:
            return values
        layers = sorted(set(self.site_layers))
        sites = np.asarray(self.site_layers)
        return np.stack([values[:, sites == layer].mean(axis=1) for layer in layers], axis=1)


def _same(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        one, other = cast(dict[str, object], a), cast(dict[str, object], b)
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return bool(a == b)
    first, second = cast(NDArray[Any], a), cast(NDArray[Any], b)
    is_float = first.dtype.kind == "f"
    return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=is_float)
