"""Explore: trace a text and look at how its tokens were routed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from lmoe_studio.errors import LMoEError
from lmoe_studio.ui import panels
from lmoe_studio.ui.clean_text import typed
from lmoe_studio.ui.components.workbench import (
    answer_pick,
    build_workbench,
    show_no_trace,
    show_trace,
)
from lmoe_studio.ui.examples import EXAMPLES
from lmoe_studio.ui.export import TraceFormat, write_trace
from lmoe_studio.ui.outcome import Outcome, trace_text
from lmoe_studio.ui.page import Follower, Page, user_of
from lmoe_studio.ui.payload import trace_payload
from lmoe_studio.ui.source import SourceState

TITLE = "Explore"
KEPT = {"trace": "", "text": ""}

_QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_MODEL = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
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
    cut: gr.Button
    examples: list[tuple[gr.Button, str]]
    notice: gr.HTML
    workbench: gr.HTML
    exports: gr.Row
    csv: gr.Button
    parquet: gr.Button


def build(page: Page) -> Follower:
    """Lay out the tab and wire it."""
    parts = _lay_out()
    _wire_trace(page, parts)
    _wire_memory(page, parts)
    _wire_workbench(page, parts)
    _wire_export(page, parts)
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
    with gr.Row(elem_id="examples"):
        gr.HTML("<span>Examples</span>", apply_default_css=False, scale=0, min_width=64)
        buttons = [
            (gr.Button(name, size="sm", scale=0, min_width=64), text)
            for name, text in EXAMPLES.items()
        ]
    notice = gr.HTML(apply_default_css=False, elem_id="notice")
    cut = gr.Button("", size="sm", visible=False, elem_id="cut")
    workbench = build_workbench(visible="hidden", elem_id="workbench")
    with gr.Row(visible=False, elem_id="exports") as exports:
        csv = gr.Button("Export CSV", size="sm", scale=0, min_width=112)
        parquet = gr.Button("Export Parquet", size="sm", scale=0, min_width=112)
        gr.HTML(
            "<span>One row a token, layer and expert, with exact weights</span>",
            apply_default_css=False,
        )
    return Parts(prompt, run, cut, buttons, notice, workbench, exports, csv, parquet)


def _wire_trace(page: Page, parts: Parts) -> None:
    outputs = [
        page.status, parts.notice, parts.cut, parts.run,
        parts.workbench, page.kept["trace"], parts.exports,
    ]  # fmt: skip

    def _show(outcome: Outcome, user: str) -> list[Any]:
        trace, cut_to = outcome.trace, outcome.cut_to
        cut = f"Trace the first {cut_to:,} tokens" if cut_to else ""
        ready = gr.update(value="Trace", interactive=page.source.state.studio is not None)
        head = [outcome.status, outcome.notice, gr.update(value=cut, visible=bool(cut)), ready]
        if trace is None:
            return [*head, gr.skip(), gr.skip(), gr.skip()]
        key = page.traces.put(user, trace)
        shown = show_trace(trace_payload(trace, key=key))
        return [*head, shown, key, gr.update(visible=True)]

    def _run(text: str, request: gr.Request, *, cut: bool) -> Iterator[list[Any]]:
        state = page.source.state
        if state.studio is None:
            yield [gr.skip()] * len(outputs)
            return
        busy = gr.update(value="Tracing…", interactive=False)
        waiting = panels.status_line("Tracing…", tone="loading")
        yield [waiting, "", gr.update(visible=False), busy, gr.skip(), gr.skip(), gr.skip()]
        limit = state.studio.card.context_length if cut else None
        yield _show(trace_text(state, typed(text), max_tokens=limit), user_of(request))

    def _on_trace(text: str, request: gr.Request) -> Iterator[list[Any]]:
        yield from _run(text, request, cut=False)

    def _on_cut(text: str, request: gr.Request) -> Iterator[list[Any]]:
        yield from _run(text, request, cut=True)

    parts.run.click(_on_trace, parts.prompt, outputs, **_MODEL)
    parts.cut.click(_on_cut, parts.prompt, outputs, **_MODEL)
    for button, text in parts.examples:
        filled = button.click(None, None, parts.prompt, js=f"() => {json.dumps(text)}", **_QUIET)
        filled.then(_on_trace, parts.prompt, outputs, **_MODEL)


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

    def _on_open(key: object, request: gr.Request) -> list[Any]:
        trace = page.traces.get(user_of(request), key)
        if trace is None:
            gone = "The Studio no longer has the trace that was shown here; trace the text again."
            return [show_no_trace(gone) if key else gr.skip(), gr.skip()]
        payload = trace_payload(trace, key=str(key))
        return [show_trace(payload), gr.update(visible=True)]

    page.app.load(_on_open, page.kept["trace"], [parts.workbench, parts.exports], **_QUIET)


def _wire_workbench(page: Page, parts: Parts) -> None:
    # "multiple": with "always_last" Gradio would replay the first event's data.
    on_pick = answer_pick(page.traces)
    parts.workbench.pick(on_pick, None, parts.workbench, trigger_mode="multiple", **_QUIET)


def _wire_export(page: Page, parts: Parts) -> None:
    folder = TemporaryDirectory(prefix="lmoe-export-")

    def _exporter(kind: TraceFormat) -> Any:
        def _on_export(key: object, request: gr.Request) -> list[Any]:
            trace = page.traces.get(user_of(request), key)
            if trace is None:
                gone = "The Studio has let go of this trace; trace the text again, then export it."
                return [None, panels.panel("problem", "Nothing to export", gone)]
            try:
                return [str(write_trace(trace, kind, Path(folder.name))), ""]
            except (LMoEError, OSError) as error:
                return [None, panels.panel("problem", "The export failed", str(error))]

        return _on_export

    outputs = [page.download, parts.notice]
    kinds: tuple[tuple[gr.Button, TraceFormat], ...] = (
        (parts.csv, "csv"),
        (parts.parquet, "parquet"),
    )
    for button, kind in kinds:
        made = button.click(_exporter(kind), page.kept["trace"], outputs, api_visibility="private")
        page.hand_over(made)
