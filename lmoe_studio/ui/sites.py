"""What is particular to a router, for the workbench: how many experts act, and what it noted."""

import json
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from analysis.sites import FOR_THE_GATE, says_something, type_names
from lmoe_studio.tracing.records import FloatArray, RoutingTrace
from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.packing import Steps, in_steps, packed
from lmoe_studio.ui.palette import type_colour

_MOST_VALUES = 8
"""A note of more numbers a token is none that a person reads."""
_SHOWN_APART = ("threshold", "type")


class ShownSites(TypedDict):
    """Of each token and layer; means where a layer has several routers."""

    active: Steps
    """Experts with a weight other than 0."""
    mass: Steps
    """Sum of the weights."""


class TypeLook(TypedDict):
    """How the views call and draw one type of token."""

    name: str
    colour: str


class ShownNotes(TypedDict):
    """What the router noted, or was told, that views show."""

    threshold: NotRequired[Steps]
    """`[token, layer]`"""
    is_reached: NotRequired[bool]
    """Whether those that act are those that reach the threshold: no top-k chooses among them."""
    types: NotRequired[list[TypeLook]]
    type: NotRequired[str]
    """base64 uint8 `[token]`: indices into `types`."""


def shown_sites(trace: RoutingTrace, weights: FloatArray) -> ShownSites | None:
    """How many experts act and with what weight; None where that is the same everywhere, and 1 in all.

    Args:
        trace: whose sites they are of.
        weights: `[position, site, expert]`; its own, or others.
    """
    known = np.nan_to_num(weights)
    active, mass = (known != 0).sum(axis=-1), known.sum(axis=-1)
    if not says_something(active, mass):
        return None
    by_layer = (trace.by_layer(values.astype(np.float32)) for values in (active, mass))
    return dict(zip(("active", "mass"), map(in_steps, by_layer), strict=True))  # pyright: ignore[reportReturnType]


def shown_notes(trace: RoutingTrace, shown: slice) -> ShownNotes | None:
    """What the router noted of the tokens shown; None where it notes nothing that a view shows."""
    found: ShownNotes = {}
    settings = json.loads(trace.router or "{}")
    said = settings.get("threshold")
    if "threshold" in trace.notes:
        noted = _first(trace.notes["threshold"][shown])
        found["threshold"] = in_steps(trace.by_layer(noted.astype(np.float32)))
    elif said:
        found["threshold"] = {"least": float(said["limit"]), "step": 0.0, "values": None}
    if "threshold" in found:
        found["is_reached"] = settings.get("top_k") is None
    if "type" in trace.notes:
        types = _first(trace.notes["type"][shown])[:, 0].clip(0, 255)
        found["types"] = _looks(trace, int(types.max(initial=0)))
        found["type"] = packed(types, "u1")
    return found or None


def notes_of_cell(trace: RoutingTrace, token: int, layer: int) -> dict[str, list[float]]:
    """What else the router noted of a token at a layer (an index), where there is one router in it."""
    if layer < 0 or trace.site_modules is not None:
        return {}
    others = {
        clean(name): values[token, layer].ravel()
        for name, values in trace.notes.items()
        if name not in _SHOWN_APART + FOR_THE_GATE
    }
    return {
        name: [float(value) for value in values]
        for name, values in others.items()
        if 0 < len(values) <= _MOST_VALUES and np.isfinite(values).all()
    }


def _first(note: NDArray[Any]) -> NDArray[Any]:
    """`[position, site]`: of several numbers the first."""
    return note.reshape(*note.shape[:2], -1)[:, :, 0]


def _looks(trace: RoutingTrace, most: int) -> list[TypeLook]:
    names = type_names(trace)
    names += [f"type {number}" for number in range(len(names), most + 1)]
    return [{"name": clean(name), "colour": type_colour(i)} for i, name in enumerate(names)]
