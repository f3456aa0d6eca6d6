"""A comparison as the page draws it: runs side by side, where they part, and how routing differs."""

from base64 import b64encode
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.tracing.records import RoutingTrace
from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.payload import MOST_TOKENS, TracePayload, trace_payload

if TYPE_CHECKING:
    from lmoe_studio.generation.comparison import Comparison

BASE = "base"
ROUTER_ALONE = RoutingPlan().to_json()


class RunView(TypedDict):
    """One run: its text, its numbers, and in a comparison its trace."""

    name: str
    plan: str
    text: str
    tokens: int
    tokens_per_second: float
    finish: str
    reference: float | None
    """Log-probability of the reference text, in nats."""
    trace: NotRequired[TracePayload]


class DifferenceMap(TypedDict):
    """Jensen-Shannon divergence of two runs' weights, over what they share."""

    names: tuple[str, str]
    shape: tuple[int, int]
    """Tokens, layers."""
    values: str
    """base64 uint8 `[token, layer]`; 255 stands for `most`."""
    least: float
    most: float
    """The smallest and the largest divergence; 1 is the most there can be."""
    mean: float


class ComparisonView(TypedDict):
    """A comparison, or a sweep, for the browser."""

    runs: list[RunView]
    divergences: list[tuple[str, str, int]]
    """Pairs of runs that part, with the position of the first other token."""
    differences: DifferenceMap | None
    warnings: list[str]
    bank: NotRequired[str]
    """The bank that was loaded."""


@dataclass(frozen=True)
class Compared:
    """A comparison or a sweep as the server keeps it."""

    view: ComparisonView
    table: pd.DataFrame
    traces: dict[str, str]
    """By a run's name, what the page's store of traces holds its trace under."""

    def is_router_alone(self, name: str) -> bool:
        """Whether a run of that name had no plan."""
        plans = self.table.set_index("run")["plan"]
        return plans.get(name) == ROUTER_ALONE


def comparison_view(comparison: "Comparison", plans: dict[str, RoutingPlan]) -> ComparisonView:
    """Runs with traces, side by side."""
    runs = comparison.runs
    views = run_views(comparison, plans)
    for view in views:
        trace = runs[view["name"]].trace
        if trace is not None:
            view["trace"] = trace_payload(trace, key="")
    divergences = []
    for one, other in combinations(runs, 2):
        step, trace = comparison.divergence(one, other), runs[one].trace
        if step is not None and trace is not None:
            divergences.append((one, other, prompt_length(trace) + step))
    routed = [name for name in runs if name != BASE]
    return {
        "runs": views,
        "divergences": divergences,
        "differences": _differences(comparison, *routed) if len(routed) == 2 else None,
        "warnings": warnings(comparison, plans),
    }


def sweep_view(comparison: "Comparison", plans: dict[str, RoutingPlan]) -> ComparisonView:
    """A table of texts."""
    return {
        "runs": run_views(comparison, plans),
        "divergences": [],
        "differences": None,
        "warnings": [],
    }


def run_views(comparison: "Comparison", plans: dict[str, RoutingPlan]) -> list[RunView]:
    """The text and the numbers of each run, in their order."""
    logprobs = comparison.reference_logprobs or {}
    return [
        {
            "name": clean(name),
            "plan": clean(_plan_words(name, plans)),
            "text": clean(run.text),
            "tokens": len(run.token_ids),
            "tokens_per_second": round(run.tokens_per_second, 1),
            "finish": run.finish,
            "reference": round(logprobs[name], 2) if name in logprobs else None,
        }
        for name, run in comparison.runs.items()
    ]


def runs_frame(comparison: "Comparison") -> pd.DataFrame:
    """A row a run, in their order.

    Columns: run, plan (JSON), prompt, text, finish, seed, tokens, tokens_per_second, reference_logprob
    (nats; NaN where no reference was given), against_base (how far that is above the base model's).
    """
    logprobs = comparison.reference_logprobs or {}
    base = logprobs.get(BASE, np.nan)
    rows = [
        {
            "run": clean(name),
            "plan": clean((run.trace.plan if run.trace else None) or ROUTER_ALONE),
            "prompt": clean(run.prompt),
            "text": clean(run.text),
            "finish": run.finish,
            "seed": run.seed,
            "tokens": len(run.token_ids),
            "tokens_per_second": run.tokens_per_second,
            "reference_logprob": logprobs.get(name, np.nan),
            "against_base": logprobs.get(name, np.nan) - base,
        }
        for name, run in comparison.runs.items()
    ]
    return pd.DataFrame(rows)


def warnings(comparison: "Comparison", plans: dict[str, RoutingPlan]) -> list[str]:
    """What should make someone doubt that a comparison compares anything."""
    names = list(plans)
    if len(names) == 2 and plans[names[0]] == plans[names[1]]:
        return [f"{names[0]} and {names[1]} are the same plan, so they write the same text."]
    return [
        f"{_the(one)} and {_the(other)} ask for different things, and yet wrote the same text, byte "
        "for byte: either the model is sure of these words, or an override never came to bear."
        for one, other in comparison.identical
        if plans.get(one) != plans.get(other)
    ]


def prompt_length(trace: RoutingTrace) -> int:
    """How many tokens of a trace are its prompt."""
    return int((~trace.generated).sum())


def routing_difference(one: RoutingTrace, other: RoutingTrace, shared: int) -> NDArray[np.float64]:
    """Jensen-Shannon divergence `[token, layer]` in bits, 0..1, of the first `shared` tokens.

    Weights count by size, scaled to sum to 1. Two cells without any weight are alike; one with and
    one without differ by 1.
    """
    p, q = (
        np.abs(np.nan_to_num(trace.by_layer(trace.routing_weights[:shared])).astype(np.float64))
        for trace in (one, other)
    )
    empty = [cells.sum(axis=-1) == 0 for cells in (p, q)]
    p, q = (cells / np.maximum(cells.sum(axis=-1, keepdims=True), 1e-30) for cells in (p, q))
    divergence = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    divergence[empty[0] != empty[1]] = 1.0
    divergence[empty[0] & empty[1]] = 0.0
    return divergence.clip(0, 1)


def _entropy(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    logs = np.log2(cells, where=cells > 0, out=np.zeros_like(cells))
    return -(cells * logs).sum(axis=-1)


def _differences(comparison: "Comparison", one: str, other: str) -> DifferenceMap | None:
    a, b = comparison.runs[one].trace, comparison.runs[other].trace
    if a is None or b is None:
        return None
    step = comparison.divergence(one, other)
    shared = min(len(a), len(b)) if step is None else prompt_length(a) + step
    values = routing_difference(a, b, min(shared, MOST_TOKENS))
    most = float(values.max(initial=0))
    steps = np.rint(values / max(most, 1e-12) * 255).astype(np.uint8)
    return {
        "names": (one, other),
        "shape": (values.shape[0], values.shape[1]),
        "values": b64encode(np.ascontiguousarray(steps).tobytes()).decode("ascii"),
        "least": round(float(values.min(initial=1)), 4),
        "most": round(most, 4),
        "mean": round(float(values.mean()) if values.size else 0.0, 4),
    }


def _the(name: str) -> str:
    return "The base model" if name == BASE else name


def _plan_words(name: str, plans: dict[str, RoutingPlan]) -> str:
    if name == BASE:
        return "Base model, no experts"
    plan = plans.get(name)
    if plan is None:
        return ""
    return (
        "\n".join(repr(one).removeprefix("Override.") for one in plan.overrides) or "Router alone"
    )
