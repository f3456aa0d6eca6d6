"""A trace as the workbench draws it: small enough to send whole, once.

The browser gets weights in steps of 1/255 and answers every viewing act from them; exact numbers
stay here and are asked for one cell at a time.
"""

from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from lmoe_studio.tracing.records import FloatArray, RoutingTrace
from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.packing import packed, packed_bits
from lmoe_studio.ui.palette import expert_colour, expert_glyph
from lmoe_studio.ui.sites import (
    ShownNotes,
    ShownSites,
    notes_of_cell,
    shown_notes,
    shown_sites,
)

MOST_TOKENS = 4096
"""Tokens that the workbench shows; an export holds all."""
NEARLY_UNIFORM = 0.98
SPECIAL, GENERATED = 1, 2
"""Bits of a token's flags."""


class ExpertLook(TypedDict):
    """How the views call and draw one expert."""

    name: str
    glyph: str
    colour: str


class ShownWeights(TypedDict):
    """Weights for the browser."""

    scale: float
    """The weight that 255 stands for: 1, or more where weights exceed 1 or fall below -1."""
    weights: str
    """base64 uint8 `[token, layer, expert]`; 0 for what is below 0."""
    below: NotRequired[str]
    """The same of weights with their signs changed, where some are below 0."""
    overridden: str | None
    """base64 bits `[token, layer]`, the highest first: where a plan changed something."""
    sites: NotRequired[ShownSites]
    """Where weights do not sum to 1, or a token has more experts than another."""


class TracePayload(ShownWeights):
    """One trace for the browser; `base64` fields are little-endian arrays."""

    id: str
    shape: tuple[int, int, int]
    """Tokens shown, layers, experts."""
    total: int
    """Tokens of the whole trace."""
    bank: str
    experts: list[ExpertLook]
    layers: list[int]
    tokens: list[str]
    flags: str
    """base64 uint8 `[token]`: SPECIAL | GENERATED."""
    own: str | None
    """The weights without the plan, where it changed some: the router's own."""
    own_below: NotRequired[str]
    notes: NotRequired[ShownNotes]
    logprobs: list[float | None]
    ranks: list[int]
    entropies: list[float | None]
    strings: list[str]
    """Texts of the alternatives, each once."""
    alternatives: str
    """base64 uint16 `[token, k]`: indices into `strings`."""
    alternative_logprobs: str
    """base64 uint16 `[token, k]`: negative thousandths of a nat."""
    has_contributions: bool
    uniformity: float | None
    """Mean normalised entropy of the routing, where it is nearly uniform."""
    run: NotRequired["RunNote"]
    """What the text was made by, where the model wrote some of it."""


class RunNote(TypedDict):
    """What the workbench says of a run that generated text."""

    series: str
    """The same for every view of one run."""
    follows: str
    """The id of the text that it goes on after; empty for a new one."""
    live: bool
    """Whether the run goes on, so that this is not its last view."""
    signature: str
    """The composer's name for the plan it was made with."""
    notes: list[str]


class ExactCell(TypedDict):
    """Exact values for a range of tokens at one layer; means where there is more than one."""

    id: str
    lo: int
    hi: int
    layer: int
    weights: list[float]
    contributions: list[float] | None
    token_id: int | None
    logprob: float | None
    notes: dict[str, list[float]]
    """What the router noted of the one token at the one layer, such as its nearest examples."""


def trace_payload(trace: RoutingTrace, *, key: str) -> TracePayload:
    """Everything the workbench needs to draw a trace; `key` is what it asks for more with."""
    shown = slice(0, MOST_TOKENS)
    weights = _by_layer(trace, trace.routing_weights)
    own = _by_layer(trace, trace.router_weights) if trace.overridden[shown].any() else None
    least = 1.0 if own is None else float(np.abs(own).max(initial=1))
    seen = shown_weights(trace, trace.routing_weights, trace.overridden, least=least)
    strings, alternatives = _interned(trace.alternative_tokens[shown])
    logprobs = np.nan_to_num(trace.alternative_logprobs[shown], nan=-65.535, neginf=-65.535)
    payload: TracePayload = {
        "id": key,
        "shape": (weights.shape[0], weights.shape[1], weights.shape[2]),
        "total": len(trace),
        "bank": clean(trace.bank),
        "experts": [
            {"name": clean(name), "glyph": expert_glyph(index), "colour": expert_colour(index)}
            for index, name in enumerate(trace.experts)
        ],
        "layers": sorted(set(trace.site_layers)),
        "tokens": [clean(token) for token in trace.tokens[shown]],
        "flags": packed(trace.special[shown] * SPECIAL + trace.generated[shown] * GENERATED, "u1"),
        **seen,
        "own": None if own is None else _steps(own, seen["scale"]),
        "logprobs": _rounded(trace.logprobs[shown]),
        "ranks": trace.ranks[shown].tolist(),
        "entropies": _rounded(trace.entropies[shown]),
        "strings": strings,
        "alternatives": packed(alternatives, "<u2"),
        "alternative_logprobs": packed(np.rint(logprobs * -1000).clip(0, 65535), "<u2"),
        "has_contributions": trace.contributions is not None,
        "uniformity": _uniformity(weights, trace.special[shown]),
    }
    if own is not None and own.min(initial=0) < 0:
        payload["own_below"] = _steps(-own, seen["scale"])
    if notes := shown_notes(trace, shown):
        payload["notes"] = notes
    return payload


def shown_weights(
    trace: RoutingTrace,
    weights: FloatArray,
    overridden: NDArray[np.bool_],
    *,
    least: float = 1.0,
) -> ShownWeights:
    """Weights `[position, site, expert]` over a trace's tokens, as the workbench draws them.

    Args:
        trace: whose tokens and sites they are of.
        weights: its own, or others.
        overridden: where a plan changed them.
        least: what 255 stands for at least.
    """
    cells = _by_layer(trace, weights)
    changed = overridden[:MOST_TOKENS]
    scale = float(np.abs(cells).max(initial=least))
    found: ShownWeights = {
        "scale": scale,
        "weights": _steps(cells, scale),
        "overridden": packed_bits(np.any(trace.by_layer(changed), axis=2))
        if changed.any()
        else None,
    }
    if cells.min(initial=0) < 0:
        found["below"] = _steps(-cells, scale)
    sites = shown_sites(trace, weights[:MOST_TOKENS])
    if sites is not None:
        found["sites"] = sites
    return found


def exact_cell(trace: RoutingTrace, *, key: str, lo: int, hi: int, layer: int) -> ExactCell:
    """Exact values of tokens `lo..hi` at a layer (an index; -1 means the mean of all layers)."""
    one = lo == hi
    contributions = trace.contributions
    return {
        "id": key,
        "lo": lo,
        "hi": hi,
        "layer": layer,
        "weights": _cell(trace, trace.routing_weights, lo, hi, layer),
        "contributions": None
        if contributions is None
        else _cell(trace, contributions, lo, hi, layer),
        "token_id": int(trace.token_ids[lo]) if one else None,
        "logprob": _finite(trace.logprobs[lo]) if one else None,
        "notes": notes_of_cell(trace, lo, layer) if one else {},
    }


def read_pick(data: Any, trace: RoutingTrace) -> tuple[int, int, int] | None:
    """The cell `(lo, hi, layer)` a browser asks for, or None where it asks for nonsense."""
    if not isinstance(data, dict):
        return None
    lo, hi, layer = (data.get(name) for name in ("lo", "hi", "layer"))
    if not (type(lo) is int and type(hi) is int and type(layer) is int):
        return None
    if 0 <= lo <= hi < len(trace) and -1 <= layer < trace.num_layers:
        return lo, hi, layer
    return None


def _by_layer(trace: RoutingTrace, values: FloatArray) -> FloatArray:
    """Of the tokens shown, `[token, layer, expert]`; 0 where nothing is known."""
    return np.nan_to_num(trace.by_layer(values[:MOST_TOKENS]))


def _cell(
    trace: RoutingTrace, values: NDArray[np.float32], lo: int, hi: int, layer: int
) -> list[float]:
    cells = trace.by_layer(values[lo : hi + 1]).astype(np.float64).mean(axis=0)
    return (cells.mean(axis=0) if layer < 0 else cells[layer]).tolist()


def _steps(weights: NDArray[np.float32], scale: float) -> str:
    return packed(np.rint(weights.clip(min=0) / scale * 255), "u1")


def _finite(value: np.float32) -> float | None:
    return float(value) if np.isfinite(value) else None


def _rounded(values: NDArray[np.float32]) -> list[float | None]:
    return [round(float(value), 3) if np.isfinite(value) else None for value in values]


def _interned(rows: tuple[tuple[str, ...], ...]) -> tuple[list[str], NDArray[np.int64]]:
    index_of: dict[str, int] = {}
    indices = [[index_of.setdefault(clean(text), len(index_of)) for text in row] for row in rows]
    return list(index_of), np.asarray(indices, dtype=np.int64).reshape(
        len(rows), len(rows[0]) if rows else 0
    )


def _uniformity(weights: NDArray[np.float32], special: NDArray[np.bool_]) -> float | None:
    """Mean entropy of the weights over log K, or None below what counts as nearly uniform."""
    num_experts = weights.shape[2]
    cells = weights[~special].clip(min=0).reshape(-1, num_experts)
    totals = cells.sum(axis=1, keepdims=True)
    cells = cells[totals[:, 0] > 0] / totals[totals[:, 0] > 0]
    if num_experts < 2 or not len(cells):
        return None
    entropy = -(cells * np.log(cells, where=cells > 0, out=np.zeros_like(cells))).sum(axis=1)
    mean = float(entropy.mean() / np.log(num_experts))
    return round(mean, 3) if mean >= NEARLY_UNIFORM else None
