"""Compose: let the model write while its routing is overridden by hand."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lmoe_studio.errors import TextError
from lmoe_studio.tracing.records import RoutingTrace
from lmoe_studio.ui import panels
from lmoe_studio.ui.clean_text import typed
from lmoe_studio.ui.components.composer import build_composer
from lmoe_studio.ui.components.workbench import (
    answer_pick,
    answer_preview,
    build_workbench,
    show_no_trace,
    show_trace,
)
from lmoe_studio.ui.examples import BEGINNINGS
from lmoe_studio.ui.exports.bar import Find, build_bar, wire_bar
from lmoe_studio.ui.exports.exportable import Exportable
from lmoe_studio.ui.exports.sources import trace_exports
from lmoe_studio.ui.page import Follower, Page, user_of
from lmoe_studio.ui.payload import RunNote, trace_payload
from lmoe_studio.ui.plan_form import read_form
from lmoe_studio.ui.problems import problem_panel
from lmoe_studio.ui.settings_form import SettingsForm, build_settings
from lmoe_studio.ui.source import SourceState
from lmoe_studio.ui.tabs.compose_json import build_json
from lmoe_studio.ui.tabs.compose_save import build_save
from lmoe_studio.ui.writing import Written, read_settings, write

TITLE = "Compose"
KEPT = {"beginning": "", "written": ["", ""]}

_QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
# Texts of several visitors grow side by side: their steps take turns inside the Studio.
_WRITING = {
    "concurrency_id": "writing",
    "concurrency_limit": 8,
    "show_progress": "hidden",
    "api_visibility": "private",
}
_GONE = "The Studio no longer has the text that was shown here; generate it again."
_MOST_CHARACTERS, _MOST_KEPT = 200_000, 100_000
_STEPS = (
    "Write the beginning of a text above, and press Generate: the router chooses its experts.",
    "Mute, solo or move an expert in the mixer: the weights below follow at once, as a preview.",
    "Generate again to see what the text becomes, or continue the one there is.",
)


@dataclass(frozen=True)
class Parts:
    """The tab's components that handlers read or write."""

    prompt: gr.Textbox
    generate: gr.Button
    go_on: gr.Button
    stop: gr.Button
    settings: SettingsForm
    starts: list[tuple[gr.Button, str]]
    notice: gr.HTML
    composer: gr.HTML
    workbench: gr.HTML
    exports: gr.HTML
    run: gr.State


def build(page: Page) -> Follower:
    """Lay out the tab and wire it."""
    parts = _lay_out()
    _wire_writing(page, parts)
    _wire_memory(page, parts)
    wire_bar(page, parts.exports, page.kept["written"], _exports_of(page))
    save = build_save(page, parts.composer)
    build_json(page, parts.composer)
    workbench = parts.workbench
    for asked, answer in (
        (workbench.pick, answer_pick(page.traces)),
        (workbench.preview, answer_preview(page.traces, page.source)),
    ):
        asked(answer, None, workbench, trigger_mode="multiple", **_QUIET)
    return Follower([parts.notice, parts.generate, save], _on_source)


def _lay_out() -> Parts:
    with gr.Row(elem_classes="ask", elem_id="compose-ask"):
        prompt = gr.Textbox(
            label="Beginning of the text",
            placeholder="The model goes on from here…",
            lines=2,
            max_lines=6,
            max_length=_MOST_CHARACTERS,
            scale=8,
            elem_id="compose-prompt",
        )
        generate = gr.Button(
            "Generate", variant="primary", interactive=False, scale=0, min_width=112,
            elem_id="generate", elem_classes="primary-act",
        )  # fmt: skip
        go_on = gr.Button(
            "Continue", interactive=False, scale=0, min_width=96,
            elem_id="continue", elem_classes="ask-act",
        )  # fmt: skip
        stop = gr.Button(
            "Stop", interactive=False, scale=0, min_width=72,
            elem_id="stop", elem_classes="stop-act",
        )  # fmt: skip
    with gr.Row(elem_classes="starts"):
        gr.HTML("<span>Beginnings</span>", apply_default_css=False, scale=0, min_width=72)
        starts = [
            (gr.Button(name, size="sm", scale=0, min_width=64), text)
            for name, text in BEGINNINGS.items()
        ]
    settings = build_settings("compose-settings")
    notice = gr.HTML(apply_default_css=False, elem_id="compose-notice", elem_classes="notice")
    composer = build_composer(elem_id="composer")
    workbench = build_workbench(steered=True, steps=_STEPS, elem_id="compose-workbench")
    exports = build_bar(elem_id="compose-exports")
    return Parts(
        prompt, generate, go_on, stop, settings, starts, notice, composer, workbench, exports,
        gr.State(""),
    )  # fmt: skip


Start = Callable[[str, RoutingTrace | None], str | RoutingTrace]
"""What a run begins with, of what is typed and the text shown: one of them."""


def _from_prompt(prompt: str, _: RoutingTrace | None) -> str:
    return prompt


def _from_text(_: str, shown: RoutingTrace | None) -> RoutingTrace:
    if shown is None:
        raise TextError(_GONE)
    return shown


def _wire_writing(page: Page, parts: Parts) -> None:
    outputs = [
        page.status, parts.notice, parts.generate, parts.go_on, parts.stop, parts.workbench,
        page.kept["written"], parts.run,
    ]  # fmt: skip
    inputs = [parts.prompt, page.kept["written"], parts.composer, *parts.settings.inputs]

    def writing(start: Start) -> Callable[..., Iterator[list[Any]]]:
        def _on_write(
            prompt: str, written: object, form: object, length: object, greedy: object,
            temperature: object, seed: object, chat: object, request: gr.Request,
        ) -> Iterator[list[Any]]:  # fmt: skip
            """Closed by Gradio when the tab is closed or reloaded, which ends the run as well."""
            user, state = user_of(request), page.source.state
            key, _ = _kept_text(written)
            shown = page.traces.get(user, key)
            with page.runs.running(user) as (run, stop):
                waiting = panels.status_line("Reading the text…", tone="loading")
                yield [waiting, "", *_busy(), *_same(2), run]
                try:
                    plan = read_form(form, bank=state.studio and state.studio.card.bank)
                    settings = read_settings(length, greedy, temperature, seed, chat)
                    begin = start(typed(prompt), shown)
                except Exception as error:
                    yield [
                        _plain_status(page),
                        problem_panel(error),
                        *_idle(page, shown),
                        *_same(3),
                    ]
                    return
                note = RunNote(
                    series=run, follows="" if begin is not shown else key, live=True,
                    signature=plan.signature, notes=[],
                )  # fmt: skip
                for view in write(state, begin, plan.plan, settings, stop):
                    if page.runs.is_forgotten(user, run):
                        stop.set()
                    yield _show(page, view, note, shown, user=user)

        return _on_write

    parts.generate.click(writing(_from_prompt), inputs, outputs, **_WRITING)
    parts.go_on.click(writing(_from_text), inputs, outputs, **_WRITING)

    def _on_seen(event: gr.EventData, request: gr.Request) -> None:
        said = event._data
        page.runs.see(user_of(request), said.get("run") if isinstance(said, dict) else None)

    parts.workbench.seen(_on_seen, None, None, trigger_mode="multiple", **_QUIET)
    page.wire_stop(parts.stop, parts.run)
    for button, text in parts.starts:
        button.click(None, None, parts.prompt, js=f"() => {json.dumps(text)}", **_QUIET)


def _show(
    page: Page, view: Written, note: RunNote, before: RoutingTrace | None, *, user: str
) -> list[Any]:
    """A view of a run; `before` is what was shown when it began."""
    trace = view.trace
    buttons = _same(3) if view.live else _idle(page, before if trace is None else trace)
    head = [view.status, view.notice, *buttons]
    if trace is None:
        return [*head, *_same(3)]
    key = "" if view.live else page.traces.put(user, trace)
    payload = trace_payload(trace, key=key)
    payload["run"] = {**note, "live": view.live, "notes": list(view.notes)}
    kept = gr.skip() if view.live else [key, note["signature"]]
    return [*head, show_trace(payload), kept, gr.skip()]


def _busy() -> list[Any]:
    """The buttons during a run."""
    return [
        gr.update(value="Generating…", interactive=False),
        gr.update(interactive=False),
        gr.update(value="Stop", interactive=True),
    ]


def _idle(page: Page, shown: RoutingTrace | None) -> list[Any]:
    """The buttons between runs, with a text that is shown or none."""
    return [
        gr.update(value="Generate", interactive=page.source.state.studio is not None),
        _continuing(shown),
        gr.update(value="Stop", interactive=False),
    ]


def _continuing(shown: RoutingTrace | None) -> Any:
    """Continue can be pressed where there is a text, unless it ended by itself, with an end mark."""
    has_ended = shown is not None and len(shown) and shown.generated[-1] and shown.special[-1]
    return gr.update(interactive=shown is not None and not has_ended)


def _kept_text(written: object) -> tuple[str, str]:
    """What a browser keeps of the text it shows: its id, and the signature of its plan."""
    match written:
        case [str(key), str(signature)]:
            return key, signature[:40]
        case _:
            return "", ""


def _same(count: int) -> list[Any]:
    return [gr.skip() for _ in range(count)]


def _plain_status(page: Page) -> str:
    studio = page.source.state.studio
    return panels.status_line(f"Ready · {studio.card.bank}" if studio else "Waiting for the model")


def _on_source(state: SourceState) -> list[Any]:
    """Notice and buttons as a bank comes, goes or fails to load."""
    if state.studio is not None:
        ready = gr.update(interactive=True)
        return ["", ready, ready]
    if state.problem is not None:
        notice = panels.panel("problem", "The bank could not be loaded", state.problem)
    else:
        title = "Loading the base model and its experts"
        notice = panels.panel("loading", title, state.progress or "")
    idle = gr.update(interactive=False)
    return [notice, idle, idle]


def _wire_memory(page: Page, parts: Parts) -> None:
    """Bring back what was typed and written when the page is reloaded; the composer keeps itself."""
    keep = f"(text) => text.length <= {_MOST_KEPT} ? text : ''"
    parts.prompt.change(None, parts.prompt, page.kept["beginning"], js=keep, **_QUIET)
    bring_back = "(saved, typed) => typed || saved || ''"
    page.app.load(
        None, [page.kept["beginning"], parts.prompt], parts.prompt, js=bring_back, **_QUIET
    )

    def _on_open(written: object, request: gr.Request) -> list[Any]:
        key, signature = _kept_text(written)
        trace = page.traces.get(user_of(request), key)
        if trace is None:
            return [show_no_trace(_GONE) if key else gr.skip(), _continuing(None)]
        payload = trace_payload(trace, key=key)
        payload["run"] = RunNote(series=key, follows="", live=False, signature=signature, notes=[])
        return [show_trace(payload), _continuing(trace)]

    shown = [parts.workbench, parts.go_on]
    page.app.load(_on_open, page.kept["written"], shown, **_QUIET)


def _exports_of(page: Page) -> Find:
    def find(user: str, written: object) -> dict[str, Exportable]:
        trace = page.traces.get(user, _kept_text(written)[0])
        return trace_exports(trace, "text and its routing") if trace is not None else {}

    return find
