"""Compare: the same prompt and seed under two plans and without experts."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

import gradio as gr
import numpy as np

from lmoe_studio.errors import PlanError
from lmoe_studio.ui import panels
from lmoe_studio.ui.clean_text import clean, typed
from lmoe_studio.ui.compared import comparison_view, sweep_view
from lmoe_studio.ui.comparing import (
    Made,
    Results,
    Work,
    check,
    exports_of,
    or_none,
    run_for_page,
    strongest_in,
    strongest_of,
)
from lmoe_studio.ui.components.comparison import (
    build_comparison,
    build_picker,
    show_comparison,
    show_no_comparison,
)
from lmoe_studio.ui.examples import BEGINNINGS
from lmoe_studio.ui.exports.bar import build_bar, wire_bar
from lmoe_studio.ui.page import Follower, Page, user_of
from lmoe_studio.ui.plan_form import read_picks
from lmoe_studio.ui.settings_form import SettingsForm, build_settings
from lmoe_studio.ui.source import SourceState
from lmoe_studio.ui.writing import options_of, read_settings

if TYPE_CHECKING:
    from lmoe_studio.studio import Studio

TITLE = "Compare"
KEPT = {"compared": "", "reference": "", "comparison": "", "sweep": ""}
_MOST_RESULTS = 24
"""Comparisons and sweeps of all users that the server keeps."""
LEAST_STEPS, MOST_STEPS = 3, 7
_EXAMPLES = ("SQL", "French", "Question")

_QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_MODEL = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
    "show_progress": "hidden",
    "api_visibility": "private",
}
_MOST_CHARACTERS = 100_000

_WHAT = (
    "<p>The same beginning and seed are continued three times, side by side: <b>A</b> under plan A, "
    "<b>B</b> under plan B, and the <b>base model</b> without any expert. A plan is the router alone, "
    "one expert alone, what the mixer in Compose holds, one of its presets, or JSON.</p>"
)


@dataclass(frozen=True)
class Parts:
    """The tab's components that handlers read or write."""

    prompt: gr.Textbox
    compare: gr.Button
    stop: gr.Button
    examples: list[tuple[gr.Button, str]]
    same: gr.Button
    picker: gr.HTML
    reference: gr.Textbox
    settings: SettingsForm
    notice: gr.HTML
    comparison: gr.HTML
    exports: gr.HTML
    expert: gr.Dropdown
    steps: gr.Slider
    sweep: gr.Button
    swept: gr.HTML
    swept_exports: gr.HTML
    run: gr.State


def build(page: Page) -> Follower:
    """Lay out the tab and wire it."""
    parts, results = _lay_out(), Results(_MOST_RESULTS)
    _wire_compare(page, parts, results)
    _wire_sweep(page, parts, results)
    _follow_a(page, parts, results)
    _wire_memory(page, parts, results)
    wire_bar(page, parts.exports, page.kept["comparison"], exports_of(page, results, "texts"))
    wire_bar(page, parts.swept_exports, page.kept["sweep"], exports_of(page, results, "sweep"))
    page.wire_stop(parts.stop, parts.run)
    return Follower([parts.notice, parts.compare, parts.sweep, parts.expert], _on_source)


def _lay_out() -> Parts:
    with gr.Row(elem_classes="ask"):
        prompt = gr.Textbox(
            label="Beginning of the text, the same for all",
            placeholder="The model goes on from here…",
            lines=2, max_lines=6, max_length=_MOST_CHARACTERS, scale=8, elem_id="compare-prompt",
        )  # fmt: skip
        compare = gr.Button(
            "Compare", variant="primary", interactive=False, scale=0, min_width=112,
            elem_id="compare", elem_classes="primary-act",
        )  # fmt: skip
        stop = gr.Button(
            "Stop", interactive=False, scale=0, min_width=72,
            elem_id="compare-stop", elem_classes="stop-act",
        )  # fmt: skip
    with gr.Row(elem_classes="starts"):
        gr.HTML("<span>Examples</span>", apply_default_css=False, scale=0, min_width=64)
        examples = [
            (gr.Button(name, size="sm", scale=0, min_width=64), BEGINNINGS[name])
            for name in _EXAMPLES
        ]
        same = gr.Button("The beginning from Compose", size="sm", scale=0, min_width=170)
    gr.HTML(_WHAT, apply_default_css=False, elem_id="compare-what")
    picker = build_picker(elem_id="picker")
    reference = gr.Textbox(
        label="Reference text (optional): how likely each finds it after the beginning",
        lines=1, max_lines=4, max_length=_MOST_CHARACTERS, elem_id="reference",
    )  # fmt: skip
    settings = build_settings("compare-settings")
    notice = gr.HTML(apply_default_css=False, elem_id="compare-notice", elem_classes="notice")
    comparison = build_comparison(elem_id="comparison")
    exports = build_bar(elem_id="compare-exports")
    with gr.Accordion("Sweep one expert's strength", open=False, elem_id="sweep"):
        with gr.Row(elem_classes="settings"):
            expert = gr.Dropdown(label="Expert", choices=[], elem_id="sweep-expert")
            steps = gr.Slider(
                LEAST_STEPS, MOST_STEPS, value=5, step=1,
                label="Steps from 0 (plan A as it is) to 1 (this expert alone)",
            )  # fmt: skip
            sweep = gr.Button(
                "Sweep", interactive=False, scale=0, min_width=96, elem_id="run-sweep"
            )
        swept = build_comparison(elem_id="swept")
        swept_exports = build_bar(elem_id="sweep-exports")
    return Parts(
        prompt, compare, stop, examples, same, picker, reference, settings, notice, comparison, exports, expert,
        steps, sweep, swept, swept_exports, gr.State(""),
    )  # fmt: skip


def _wire_compare(page: Page, parts: Parts, results: Results) -> None:
    def _on_compare(
        prompt: str, picks: object, reference: str, length: object, greedy: object,
        temperature: object, seed: object, chat: object, request: gr.Request,
    ) -> Iterator[list[Any]]:  # fmt: skip
        def work(bank: str) -> Work:
            plans = dict(zip("AB", read_picks(picks, bank=bank), strict=True))
            options = options_of(read_settings(length, greedy, temperature, seed, chat))

            def compare(studio: "Studio", stop: Event) -> Made:
                check(studio, typed(prompt), plans, options["max_new_tokens"])
                made = studio.compare(
                    prompt, plans, reference=or_none(typed(reference)), should_stop=stop, **options
                )
                return made, comparison_view(made, plans)

            return compare

        yield from run_for_page(page, request, work, results, "Comparing")

    inputs = [parts.prompt, parts.picker, parts.reference, *parts.settings.inputs]
    outputs = _outputs(page, parts, "comparison")
    parts.compare.click(_on_compare, inputs, outputs, **_MODEL)
    for button, text in parts.examples:
        filled = button.click(None, None, parts.prompt, js=f"() => {json.dumps(text)}", **_QUIET)
        filled.then(_on_compare, inputs, outputs, **_MODEL)


def _wire_sweep(page: Page, parts: Parts, results: Results) -> None:
    def _on_sweep(
        prompt: str, picks: object, reference: str, expert: str, steps: float, length: object,
        greedy: object, temperature: object, seed: object, chat: object, request: gr.Request,
    ) -> Iterator[list[Any]]:  # fmt: skip
        def work(bank: str) -> Work:
            plan, _ = read_picks(picks, bank=bank)
            options = options_of(read_settings(length, greedy, temperature, seed, chat))
            asked = (
                int(steps) if isinstance(steps, int | float) and isfinite(steps) else LEAST_STEPS
            )
            count = min(max(asked, LEAST_STEPS), MOST_STEPS)
            strengths = [round(float(at), 3) for at in np.linspace(0, 1, count)]

            def sweep(studio: "Studio", stop: Event) -> Made:
                check(studio, typed(prompt), {"A": plan}, options["max_new_tokens"])
                try:
                    made = studio.sweep(
                        prompt, typed(expert), strengths=strengths, plan=plan,
                        reference=or_none(typed(reference)), should_stop=stop, **options,
                    )  # fmt: skip
                except PlanError as error:
                    raise PlanError(f"The sweep of plan A: {error}") from None
                return made, sweep_view(made, {})

            return sweep

        yield from run_for_page(page, request, work, results, "Sweeping")

    inputs = [
        parts.prompt, parts.picker, parts.reference, parts.expert, parts.steps,
        *parts.settings.inputs,
    ]  # fmt: skip
    parts.sweep.click(_on_sweep, inputs, _outputs(page, parts, "sweep"), **_MODEL)


def _follow_a(page: Page, parts: Parts, results: Results) -> None:
    """The expert to sweep is plan A's strongest, until A has another; one chosen by hand stays."""
    followed = gr.State("")

    def _on_a(picks: object, key: object, before: object, request: gr.Request) -> list[Any]:
        studio = page.source.state.studio
        if studio is None:
            return [gr.skip(), gr.skip()]
        try:
            plan, _ = read_picks(picks)
        except PlanError:  # is told when something is run with it
            return [gr.skip(), gr.skip()]
        found = strongest_of(plan)
        kept = results.get(user_of(request), key)
        if found is None and not plan and kept is not None and kept.is_router_alone("A"):
            trace = page.traces.get(user_of(request), kept.traces.get("A"))
            found = strongest_in(trace) if trace is not None and len(trace) else None
        names = [clean(expert.name) for expert in studio.card.experts]
        if found is None or clean(found) not in names or found == before:
            return [gr.skip(), gr.skip()]
        return [clean(found), found]

    given = [parts.picker, page.kept["comparison"], followed]
    for changed in (parts.picker.change, page.kept["comparison"].change):
        changed(_on_a, given, [parts.expert, followed], **_QUIET)


def _outputs(page: Page, parts: Parts, name: Literal["comparison", "sweep"]) -> list[Any]:
    shown = parts.comparison if name == "comparison" else parts.swept
    return [
        page.status, parts.notice, parts.compare, parts.sweep, parts.stop, parts.run, shown,
        page.kept[name],
    ]  # fmt: skip


def _on_source(state: SourceState) -> list[Any]:
    """Notice, buttons and the list of experts as a bank comes, goes or fails to load."""
    if state.studio is not None:
        names = [clean(expert.name) for expert in state.studio.card.experts]
        ready = gr.update(interactive=True)
        choices = gr.update(choices=names, value=names[0] if names else None)
        return ["", ready, ready, choices]
    if state.problem is not None:
        notice = panels.panel("problem", "The bank could not be loaded", state.problem)
    else:
        title = "Loading the base model and its experts"
        notice = panels.panel("loading", title, state.progress or "")
    idle = gr.update(interactive=False)
    return [notice, idle, idle, gr.skip()]


def _wire_memory(page: Page, parts: Parts, results: Results) -> None:
    """Bring back what was typed and shown before a reload; the picked plans keep themselves."""
    for name, shown in (("comparison", parts.comparison), ("sweep", parts.swept)):
        page.at_first_look(page.kept[name], [shown], _shown_again(results, name, shown))
    take = "(beginning, typed) => beginning || typed"
    parts.same.click(None, [page.kept["beginning"], parts.prompt], parts.prompt, js=take, **_QUIET)
    bring_back = "(saved, typed) => typed || saved || ''"
    for box, name in ((parts.prompt, "compared"), (parts.reference, "reference")):
        box.change(None, box, page.kept[name], js="(text) => text", **_QUIET)
        page.app.load(None, [page.kept[name], box], box, js=bring_back, **_QUIET)


def _shown_again(
    results: Results, name: str, shown: gr.HTML
) -> Callable[[object, str], dict[Any, Any]]:
    """What brings back a comparison or a sweep that the browser knows the id of."""

    def bring_back(key: object, user: str) -> dict[Any, Any]:
        kept = results.get(user, key)
        if kept is not None:
            return {shown: show_comparison(kept.view)}
        gone = f"The Studio no longer has the {name} that was shown here; run it again."
        return {shown: show_no_comparison(gone)} if key else {}

    return bring_back
