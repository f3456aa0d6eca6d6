"""One row a token and router: what the router noted, how many experts act, with what weight in all."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells import cells_of
from analysis.frames import RoutingLike, as_list, categories, token_columns

_KEYS = ("label", "phase", "token_id", "token", "special")
_ROUNDING = 1e-3
FOR_THE_GATE = ("branches",)
"""Notes that say nothing one by one: what a tree routes changed logits by."""


class NotedLike(RoutingLike, Protocol):
    """What a site frame needs beside what a routing frame does."""

    @property
    def notes(self) -> Mapping[str, NDArray[Any]]: ...
    @property
    def router(self) -> str | None: ...


def site_frame(
    traces: NotedLike | Sequence[NotedLike], *, special_tokens: bool = True
) -> pd.DataFrame:
    """One row for each position × layer (× module, where every module has a router).

    Args:
        traces: one trace or several.
        special_tokens: False leaves the tokenizer's special tokens out.

    Returns:
        run, sequence, position, phase, token_id, token, special, layer, module as in
        `routing_frame`; active (int16: experts with a weight other than 0), mass (float32: sum of the
        weights; 1 of a softmax, anything of other routers), and a column for each thing that the
        router noted: threshold (float32), type (category), path (category: the names of the experts
        along it, from the top, as `a/b`), … Of what a router noted several of, such
        as a token's nearest neighbours, the first; all are in `trace.notes`.
    """
    frames = [
        _site_rows(trace, sequence, special_tokens)
        for sequence, trace in enumerate(as_list(traces))
    ]
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def active_experts(frame: pd.DataFrame, *, by: Sequence[str] = ("layer", "phase")) -> pd.DataFrame:
    """How many experts a token has, and how much of them in all.

    Args:
        frame: a site frame; needs active, mass, and the columns in `by`.
        by: what to keep apart.

    Returns:
        One row a group: the columns of `by`, active (mean number of experts), p10 and p90 (its
        percentiles), silent (share of tokens without any: they get the base model), mass (mean sum of
        weights), mass_spread (its standard deviation), tokens (rows counted).
    """
    groups = frame.groupby(list(by), observed=True, sort=True)
    return groups.agg(
        active=("active", "mean"),
        p10=("active", lambda counts: np.percentile(counts, 10)),
        p90=("active", lambda counts: np.percentile(counts, 90)),
        silent=("active", lambda counts: (counts == 0).mean()),
        mass=("mass", "mean"),
        mass_spread=("mass", lambda sums: sums.std(ddof=0)),
        tokens=("active", "size"),
    ).reset_index()


def count_experts(frame: pd.DataFrame) -> pd.DataFrame:
    """A site frame of a routing frame, such as one of a corpus: without what routers noted.

    Args:
        frame: a routing frame; needs expert, weight and what tells its cells apart.

    Returns:
        One row for each position × layer (× module): the columns of the frame that do not differ
        between experts, as far as it has them, active and mass as in `site_frame`.
    """
    keep = [name for name in _KEYS if name in frame]
    cells = cells_of(frame, keep=keep)
    active, mass = (cells.weights != 0).sum(axis=1), cells.weights.sum(axis=1)
    return cells.keys.assign(active=active.astype(np.int16), mass=mass.astype(np.float32))


def says_something(active: NDArray[Any], mass: NDArray[Any]) -> bool:
    """Whether numbers of experts and sums of weights are worth a look.

    They are not where each token has as many experts as any other and all weights sum to 1, as of a
    softmax, with a top-k or without.
    """
    if not active.size:
        return False
    return bool((np.abs(mass - 1) > _ROUNDING).any() or active.min() != active.max())


def type_names(trace: NotedLike) -> list[str]:
    """Names of the token types by number; 0 is what none claims."""
    options = json.loads(trace.router or "{}").get("options", {})
    return ["other", *(one["name"] for one in options.get("types", []))]


def _paths(nodes: NDArray[Any], experts: Sequence[str]) -> Any:
    """The names of the experts along each path `[row, level]`."""
    return pd.Categorical(
        ["/".join(experts[int(node)] for node in path) for path in nodes.tolist()]
    )


def _site_rows(trace: NotedLike, sequence: int, special_tokens: bool) -> pd.DataFrame:
    positions, sites, _ = trace.routing_weights.shape
    columns = token_columns(trace, sequence, sites)
    columns["special"] = np.repeat(trace.special, sites)
    columns["layer"] = np.tile(np.asarray(trace.site_layers, np.int16), positions)
    if trace.site_modules is not None:
        modules = list(dict.fromkeys(trace.site_modules))
        codes = np.array([modules.index(name) for name in trace.site_modules])
        columns["module"] = categories(np.tile(codes, positions), modules)
    columns["active"] = (trace.routing_weights != 0).sum(axis=-1).astype(np.int16).ravel()
    columns["mass"] = trace.routing_weights.sum(axis=-1).ravel()
    for name, values in trace.notes.items():
        each = values.reshape(positions * sites, -1)
        if name == "type":
            columns[name] = categories(each[:, 0], type_names(trace))
        elif name == "path":
            columns[name] = _paths(each, trace.experts)
        else:
            columns[name] = each[:, 0]
    frame = pd.DataFrame(columns)
    return frame if special_tokens else frame[~frame["special"]].reset_index(drop=True)
