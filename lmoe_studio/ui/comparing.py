"""Running a comparison or a sweep for the page: however it ends, the page shows it."""

from collections.abc import Callable, Generator, Iterator
from threading import Event
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from lmoe_studio.errors import PlanError, TextError
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.tracing.records import RoutingTrace
from lmoe_studio.ui import panels
from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.compared import Compared, ComparisonView, runs_frame
from lmoe_studio.ui.components.comparison import show_comparison
from lmoe_studio.ui.exports.bar import Find
from lmoe_studio.ui.exports.exportable import Exportable
from lmoe_studio.ui.exports.sources import runs_export, table_export
from lmoe_studio.ui.page import Page, user_of
from lmoe_studio.ui.problems import problem_panel
from lmoe_studio.ui.results import ResultStore
from lmoe_studio.ui.runs import in_background

if TYPE_CHECKING:
    from lmoe_studio.generation.comparison import Comparison
    from lmoe_studio.studio import Studio

Results = ResultStore[Compared]
Made = tuple["Comparison", ComparisonView]
Work = Callable[["Studio", Event], Made]


def run_for_page(
    page: Page,
    request: gr.Request,
    prepare: Callable[[str], Work],
    results: Results,
    doing: str,
) -> Iterator[list[Any]]:
    """Do something long with the studio; however it ends, the page shows it."""
    user, same = user_of(request), [gr.skip(), gr.skip()]
    with page.runs.running(user) as (run, stop):
        yield [_busy(f"{doing}…"), "", *_buttons(busy=True), run, *same]
        try:
            studio = page.source.state.loaded()
            work = prepare(studio.card.bank)
            made, view = yield from _told(in_background(lambda: work(studio, stop), stop), doing)
        except Exception as error:
            yield [_ready(page), problem_panel(error), *_buttons(busy=False), "", *same]
            return
        view["bank"] = clean(studio.card.bank)
        shown = {each["name"] for each in view["runs"] if "trace" in each}
        traces = {
            name: page.traces.put(user, each.trace)
            for name, each in made.runs.items()
            if name in shown and each.trace is not None
        }
        key = results.put(user, Compared(view, runs_frame(made), traces))
        yield [_ready(page), "", *_buttons(busy=False), "", show_comparison(view), key]


def _told(work: Generator[float, None, Made], doing: str) -> Generator[list[Any], None, Made]:
    """Tell the page how long something has taken so far."""
    while True:
        try:
            seconds = next(work)
        except StopIteration as end:
            return end.value
        try:
            yield [_busy(f"{doing}: {seconds:.0f} s"), *[gr.skip() for _ in range(7)]]
        except GeneratorExit:
            work.close()
            raise


def check(
    studio: "Studio", prompt: str, plans: dict[str, RoutingPlan], new_tokens: int | None = None
) -> None:
    """What can be known before the model runs. Raises TextError, or PlanError that names the plan."""
    if not prompt.strip():
        raise TextError("Write the beginning of a text, and each plan goes on from it.")
    for name, plan in plans.items():
        try:
            studio.check_plan(plan, max_new_tokens=new_tokens)
        except PlanError as error:
            raise PlanError(f"Plan {name}: {error}") from None


def or_none(text: str) -> str | None:
    """None where nothing was typed."""
    return text if text.strip() else None


def _buttons(*, busy: bool) -> list[Any]:
    return [
        gr.update(interactive=not busy, value="Comparing…" if busy else "Compare"),
        gr.update(interactive=not busy),
        gr.update(interactive=busy, value="Stop"),
    ]


def _busy(text: str) -> str:
    return panels.status_line(text, tone="loading")


def _ready(page: Page) -> str:
    studio = page.source.state.studio
    return panels.status_line(f"Ready · {studio.card.bank}" if studio else "Waiting for the model")


def strongest_of(plan: RoutingPlan) -> str | None:
    """The expert that a plan gives most, by the last of its overrides that gives; None where none does."""
    for one in reversed(plan.overrides):
        gives = one.operation in ("pin", "solo", "boost", "bias") and one.strength > 0
        if gives and max(one.weights.values(), default=0) > 0:
            return max(one.weights, key=one.weights.__getitem__)
    return None


def strongest_in(trace: RoutingTrace) -> str:
    """The expert with the largest mean weight in a trace."""
    return trace.experts[int(np.nan_to_num(trace.routing_weights).mean(axis=(0, 1)).argmax())]


def exports_of(page: Page, results: Results, name: str) -> Find:
    """What of a comparison, or a sweep, can be exported; its table goes by a name."""

    def find(user: str, key: object) -> dict[str, Exportable]:
        kept = results.get(user, key)
        if kept is None:
            return {}
        texts = {name: table_export(kept.table, stem=name, row="a run, its text and its numbers")}
        traces = {
            run: trace
            for run, held in kept.traces.items()
            if (trace := page.traces.get(user, held)) is not None
        }
        is_whole = traces and len(traces) == len(kept.traces)
        return texts | ({"routing of every run": runs_export(traces)} if is_whole else {})

    return find
