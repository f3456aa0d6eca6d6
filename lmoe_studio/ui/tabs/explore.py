"""Explore: trace a text and look at how its tokens were routed."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lmoe_studio.ui import panels
from lmoe_studio.ui.clean_text import typed
from lmoe_studio.ui.components.workbench import (
    answer_pick,
    build_workbench,
    show_no_trace,
    show_trace,
)
from lmoe_studio.ui.examples import EXAMPLES
from lmoe_studio.ui.exports.bar import Find, build_bar, wire_bar
from lmoe_studio.ui.exports.exportable import Exportable
from lmoe_studio.ui.exports.sources import trace_exports
from lmoe_studio.ui.outcome import Outcome, Reading, trace_text
from lmoe_studio.ui.page import Follower, Page, user_of
from lmoe_studio.ui.payload import trace_payload
from lmoe_studio.ui.runs import in_background
from lmoe_studio.ui.source import SourceState

TITLE = "Explore"
KEPT = {"trace": "", "text": ""}

_QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
# Texts of several visitors are read side by side: their pieces take turns inside the Studio.
_READING = {
    "concurrency_id": "reading",
    "concurrency_limit": 8,
    "show_progress": "hidden",
    "api_visibility": "private",
}
_MOST_CHARACTERS = 500_000
_MOST_KEPT = 100_000


@dataclass(frozen=True)
class Parts:
    """The tab's components that handlers read or write."""

    prompt: gr.Textbox
    run: gr.Button
    stop: gr.Button
    cut: gr.Button
    examples: list[tuple[gr.Button, str]]
    notice: gr.HTML
    workbench: gr.HTML
    exports: gr.HTML
    reading: gr.State


def build(page: Page) -> Follower:
    """Lay out the tab and wire it."""
    parts = _lay_out()
    _wire_trace(page, parts)
    _wire_memory(page, parts)
    _wire_workbench(page, parts)
    wire_bar(page, parts.exports, page.kept["trace"], _exports_of(page))
    return Follower([parts.notice, parts.cut, parts.run, parts.workbench], _on_source)


def _lay_out() -> Parts:
    with gr.Row(elem_id="ask"):
        prompt = gr.Textbox(
            label="Text to trace",
            placeholder="Type or paste a text: prose, code, a question…",
            lines=4,
            max_lines=8,
            max_length=_MOST_CHARACTERS,
            autofocus=True,
            scale=8,
            elem_id="prompt",
        )
        run = gr.Button(
            "Trace", variant="primary", interactive=False, scale=0, min_width=112, elem_id="run"
        )
        stop = gr.Button(
            "Stop", interactive=False, scale=0, min_width=72,
            elem_id="trace-stop", elem_classes="stop-act",
        )  # fmt: skip
    with gr.Row(elem_id="examples"):
        gr.HTML("<span>Examples</span>", apply_default_css=False, scale=0, min_width=64)
        buttons = [
            (gr.Button(name, size="sm", scale=0, min_width=64), text)
            for name, text in EXAMPLES.items()
        ]
    notice = gr.HTML(apply_default_css=False, elem_id="notice")
    cut = gr.Button("", size="sm", visible=False, elem_id="cut")
    workbench = build_workbench(visible="hidden", elem_id="workbench")
    exports = build_bar(elem_id="exports")
    return Parts(prompt, run, stop, cut, buttons, notice, workbench, exports, gr.State(""))


def _wire_trace(page: Page, parts: Parts) -> None:
    outputs = [
        page.status, parts.notice, parts.cut, parts.run, parts.stop, parts.reading,
        parts.workbench, page.kept["trace"],
    ]  # fmt: skip

    def _busy(how_far: str, *head: Any) -> list[Any]:
        shown = [panels.status_line(how_far, tone="loading"), *head]
        return shown + [gr.skip()] * (len(outputs) - len(shown))

    def _show(outcome: Outcome, user: str) -> list[Any]:
        trace, cut_to = outcome.trace, outcome.cut_to
        cut = f"Trace the first {cut_to:,} tokens" if cut_to else ""
        ready = gr.update(value="Trace", interactive=page.source.state.studio is not None)
        idle = gr.update(value="Stop", interactive=False)
        cut_button = gr.update(value=cut, visible=bool(cut))
        head = [outcome.status, outcome.notice, cut_button, ready, idle, ""]
        if trace is None:
            return [*head, gr.skip(), gr.skip()]
        key = page.traces.put(user, trace)
        shown = show_trace(trace_payload(trace, key=key))
        return [*head, shown, key]

    def _run(text: str, request: gr.Request, *, cut: bool) -> Iterator[list[Any]]:
        """Closed by Gradio when the tab is closed or reloaded, which ends the reading as well."""
        state, user = page.source.state, user_of(request)
        if state.studio is None:
            yield [gr.skip()] * len(outputs)
            return
        limit = state.studio.card.context_length if cut else None
        with page.runs.running(user) as (run, stop):
            wait = gr.update(value="Tracing…", interactive=False)
            can_stop = gr.update(interactive=True)
            yield _busy("Tracing…", "", gr.update(visible=False), wait, can_stop, run)
            reading = Reading(stop)
            work = in_background(
                lambda: trace_text(state, typed(text), max_tokens=limit, reading=reading), stop
            )
            with closing(work):
                try:
                    while True:
                        next(work)
                        yield _busy(_how_far(reading))
                except StopIteration as end:
                    outcome = end.value
        yield _show(outcome, user)

    def _on_trace(text: str, request: gr.Request) -> Iterator[list[Any]]:
        yield from _run(text, request, cut=False)

    def _on_cut(text: str, request: gr.Request) -> Iterator[list[Any]]:
        yield from _run(text, request, cut=True)

    parts.run.click(_on_trace, parts.prompt, outputs, **_READING)
    parts.cut.click(_on_cut, parts.prompt, outputs, **_READING)
    for button, text in parts.examples:
        filled = button.click(None, None, parts.prompt, js=f"() => {json.dumps(text)}", **_QUIET)
        filled.then(_on_trace, parts.prompt, outputs, **_READING)
    page.wire_stop(parts.stop, parts.reading)


def _how_far(reading: Reading) -> str:
    if not reading.total:
        return "Tracing…"
    return f"Tracing: {reading.read:,} of {reading.total:,} tokens"


def _on_source(state: SourceState) -> list[Any]:
    """Notice, button and workbench as a bank comes, goes or fails to load."""
    no_cut = gr.update(visible=False)
    if state.studio is not None:
        return ["", no_cut, gr.update(interactive=True), gr.update(visible=True)]
    if state.problem is not None:
        notice = panels.panel("problem", "The bank could not be loaded", state.problem)
    else:
        title = "Loading the base model and its experts"
        notice = panels.panel("loading", title, state.progress or "")
    return [notice, no_cut, gr.update(interactive=False), gr.update(visible="hidden")]


def _wire_memory(page: Page, parts: Parts) -> None:
    """Bring back what was typed and shown when the page is reloaded."""
    # The text stays in the browser: what is typed must not wait for the server. A very long one is
    # not kept, as it would be stored anew with every key.
    keep = f"(text) => text.length <= {_MOST_KEPT} ? text : ''"
    parts.prompt.change(None, parts.prompt, page.kept["text"], js=keep, **_QUIET)
    bring_back = "(saved, typed) => typed || saved || ''"
    page.app.load(None, [page.kept["text"], parts.prompt], parts.prompt, js=bring_back, **_QUIET)

    def _on_open(key: object, request: gr.Request) -> Any:
        trace = page.traces.get(user_of(request), key)
        if trace is None:
            gone = "The Studio no longer has the trace that was shown here; trace the text again."
            return show_no_trace(gone) if key else gr.skip()
        return show_trace(trace_payload(trace, key=str(key)))

    page.app.load(_on_open, page.kept["trace"], parts.workbench, **_QUIET)


def _exports_of(page: Page) -> Find:
    def find(user: str, key: object) -> dict[str, Exportable]:
        trace = page.traces.get(user, key)
        return trace_exports(trace, "routing") if trace is not None else {}

    return find


def _wire_workbench(page: Page, parts: Parts) -> None:
    # "multiple": with "always_last" Gradio would replay the first event's data.
    on_pick = answer_pick(page.traces)
    parts.workbench.pick(on_pick, None, parts.workbench, trigger_mode="multiple", **_QUIET)
