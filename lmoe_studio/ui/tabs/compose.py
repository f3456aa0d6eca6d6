"""Compose: let the model write while its routing is overridden by hand."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from lmoe_studio.ui import panels
from lmoe_studio.ui.clean_text import typed
from lmoe_studio.ui.components.composer import build_composer, show_plan
from lmoe_studio.ui.components.workbench import (
    answer_pick,
    answer_preview,
    build_workbench,
    show_no_trace,
    show_trace,
)
from lmoe_studio.ui.exports.bar import Find, build_bar, wire_bar
from lmoe_studio.ui.exports.exportable import Exportable
from lmoe_studio.ui.exports.sources import trace_export
from lmoe_studio.ui.page import Follower, Page, user_of
from lmoe_studio.ui.payload import RunNote, trace_payload
from lmoe_studio.ui.plan_form import plan_text, read_form, read_plan_text
from lmoe_studio.ui.problems import problem_panel
from lmoe_studio.ui.settings_form import SettingsForm, build_settings
from lmoe_studio.ui.source import SourceState
from lmoe_studio.ui.writing import Written, read_settings, write

TITLE = "Compose"
KEPT = {"beginning": "", "written": ["", ""]}
STARTS = {
    "SQL": "-- customers with more than three orders\nSELECT",
    "French": "Le soir, dans la petite ville, le marché",
    "Recipe": "Slice the onions and cook them slowly in butter.",
    "Python": "def count_words(text):\n",
    "Question": "Question: What is the capital of France?\nAnswer:",
}

_QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_MODEL = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
    "show_progress": "hidden",
    "api_visibility": "private",
}
# Texts of several visitors grow side by side: their steps take turns inside the Studio.
_WRITING = {**_MODEL, "concurrency_id": "writing", "concurrency_limit": 8}
_MOST_CHARACTERS, _MOST_KEPT = 200_000, 100_000
_STEPS = (
    "Write the beginning of a text above, and press Generate: the router chooses its experts.",
    "Mute, solo or move an expert in the mixer: the weights below follow at once, as a preview.",
    "Generate again to see what the text becomes.",
)


@dataclass(frozen=True)
class Parts:
    """The tab's components that handlers read or write."""

    prompt: gr.Textbox
    generate: gr.Button
    stop: gr.Button
    settings: SettingsForm
    starts: list[tuple[gr.Button, str]]
    notice: gr.HTML
    composer: gr.HTML
    workbench: gr.HTML
    exports: gr.HTML
    save: gr.Button
    json: gr.Textbox
    export_plan: gr.Button
    import_plan: gr.Button
    plan_notice: gr.HTML
    run: gr.State


def build(page: Page) -> Follower:
    """Lay out the tab and wire it."""
    parts = _lay_out()
    _wire_generate(page, parts)
    _wire_memory(page, parts)
    _wire_plan_text(page, parts)
    _wire_save(page, parts)
    wire_bar(page, parts.exports, page.kept["written"], _exports_of(page))
    workbench = parts.workbench
    for asked, answer in (
        (workbench.pick, answer_pick(page.traces)),
        (workbench.preview, answer_preview(page.traces, page.source)),
    ):
        asked(answer, None, workbench, trigger_mode="multiple", **_QUIET)
    return Follower([parts.notice, parts.generate, parts.save], _on_source)


def _lay_out() -> Parts:
    with gr.Row(elem_classes="ask"):
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
        stop = gr.Button(
            "Stop",
            interactive=False,
            scale=0,
            min_width=72,
            elem_id="stop",
            elem_classes="stop-act",
        )
    with gr.Row(elem_classes="starts"):
        gr.HTML("<span>Beginnings</span>", apply_default_css=False, scale=0, min_width=72)
        starts = [
            (gr.Button(name, size="sm", scale=0, min_width=64), text)
            for name, text in STARTS.items()
        ]
    settings = build_settings("compose-settings")
    notice = gr.HTML(apply_default_css=False, elem_id="compose-notice", elem_classes="notice")
    composer = build_composer(elem_id="composer")
    workbench = build_workbench(steered=True, steps=_STEPS, elem_id="compose-workbench")
    exports = build_bar(elem_id="compose-exports")
    with gr.Row(elem_classes="starts", elem_id="compose-save-row"):
        save = gr.Button(
            "Save blend as PEFT adapter", size="sm", scale=0, min_width=180, interactive=False,
            elem_id="save-adapter",
        )  # fmt: skip
        gr.HTML(
            "<span>For a plan that is the same for all tokens: one ordinary LoRA adapter</span>",
            apply_default_css=False,
        )
    with gr.Accordion("Plan as JSON", open=False, elem_id="plan-json"):
        text = gr.Textbox(
            show_label=False, container=False, lines=6, max_lines=16, buttons=["copy"],
            placeholder="Paste a plan here, or write the present one.", elem_id="plan-text",
        )  # fmt: skip
        with gr.Row(elem_classes="starts"):
            export_plan = gr.Button("Write the present plan here", size="sm", scale=0)
            import_plan = gr.Button("Use this plan", size="sm", scale=0)
        plan_notice = gr.HTML(apply_default_css=False, elem_classes="notice")
    return Parts(
        prompt, generate, stop, settings, starts, notice, composer, workbench, exports, save,
        text, export_plan, import_plan, plan_notice, gr.State(""),
    )  # fmt: skip


def _wire_generate(page: Page, parts: Parts) -> None:
    outputs = [
        page.status, parts.notice, parts.generate, parts.stop, parts.workbench, page.kept["written"],
        parts.run,
    ]  # fmt: skip
    inputs = [parts.prompt, parts.composer, *parts.settings.inputs]

    def _on_generate(
        prompt: str,
        form: object,
        length: object,
        greedy: object,
        temperature: object,
        seed: object,
        chat: object,
        request: gr.Request,
    ) -> Iterator[list[Any]]:
        """Closed by Gradio when the tab is closed or reloaded, which ends the run as well."""
        user, state = user_of(request), page.source.state
        with page.runs.running(user) as (run, stop):
            waiting = panels.status_line("Reading the prompt…", tone="loading")
            yield [waiting, "", *_buttons(busy=True), gr.skip(), gr.skip(), run]
            try:
                plan = read_form(form, bank=state.studio and state.studio.card.bank)
                settings = read_settings(length, greedy, temperature, seed, chat)
            except Exception as error:
                yield [_plain_status(page), problem_panel(error), *_ended(page), *_same(3)]
                return
            for written in write(state, typed(prompt), plan.plan, settings, stop):
                if page.runs.is_forgotten(user, run):
                    stop.set()
                yield _show(page, written, plan.signature, series=run, user=user)

    parts.generate.click(_on_generate, inputs, outputs, **_WRITING)

    def _on_seen(event: gr.EventData, request: gr.Request) -> None:
        said = event._data
        page.runs.see(user_of(request), said.get("run") if isinstance(said, dict) else None)

    parts.workbench.seen(_on_seen, None, None, trigger_mode="multiple", **_QUIET)

    def _on_stop(run: str, request: gr.Request) -> Any:
        page.runs.stop(user_of(request), run)
        return gr.update(interactive=False, value="Stopping…")

    parts.stop.click(_on_stop, parts.run, parts.stop, **_QUIET)
    for button, text in parts.starts:
        button.click(None, None, parts.prompt, js=f"() => {json.dumps(text)}", **_QUIET)


def _show(page: Page, written: Written, signature: str, *, series: str, user: str) -> list[Any]:
    buttons = [gr.skip(), gr.skip()] if written.live else _ended(page)
    head = [written.status, written.notice, *buttons]
    if written.trace is None:
        return [*head, *_same(3)]
    key = "" if written.live else page.traces.put(user, written.trace)
    payload = trace_payload(written.trace, key=key)
    payload["run"] = RunNote(
        series=series, live=written.live, signature=signature, notes=list(written.notes)
    )
    kept = gr.skip() if written.live else [key, signature]
    return [*head, show_trace(payload), kept, gr.skip()]


def _buttons(*, busy: bool, ready: bool = True) -> list[Any]:
    return [
        gr.update(value="Generating…" if busy else "Generate", interactive=ready and not busy),
        gr.update(value="Stop", interactive=busy),
    ]


def _ended(page: Page) -> list[Any]:
    return _buttons(busy=False, ready=page.source.state.studio is not None)


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

    def _on_open(written: object, request: gr.Request) -> Any:
        key, signature = written if isinstance(written, list) and len(written) == 2 else ("", "")
        trace = page.traces.get(user_of(request), key)
        if trace is None or not isinstance(signature, str):
            gone = "The Studio no longer has the text that was shown here; generate it again."
            return show_no_trace(gone) if key else gr.skip()
        payload = trace_payload(trace, key=str(key))
        payload["run"] = RunNote(series=str(key), live=False, signature=signature[:40], notes=[])
        return show_trace(payload)

    page.app.load(_on_open, page.kept["written"], parts.workbench, **_QUIET)


def _exports_of(page: Page) -> Find:
    def find(user: str, written: object) -> dict[str, Exportable]:
        key = written[0] if isinstance(written, list) and written else None
        trace = page.traces.get(user, key)
        return {"text and its routing": trace_export(trace)} if trace is not None else {}

    return find


def _wire_plan_text(page: Page, parts: Parts) -> None:
    def _on_export(form: object) -> list[Any]:
        try:
            return [plan_text(read_form(form).plan), ""]
        except Exception as error:
            return [gr.skip(), problem_panel(error)]

    def _on_import(text: str) -> list[Any]:
        try:
            plan = read_plan_text(typed(text))
            if page.source.state.studio is not None:
                page.source.state.studio.check_plan(plan)
        except Exception as error:
            return [gr.skip(), problem_panel(error)]
        return [show_plan(plan, serial=token_hex(8)), ""]

    parts.export_plan.click(_on_export, parts.composer, [parts.json, parts.plan_notice], **_QUIET)
    parts.import_plan.click(_on_import, parts.json, [parts.composer, parts.plan_notice], **_QUIET)


def _wire_save(page: Page, parts: Parts) -> None:
    folder = TemporaryDirectory(prefix="lmoe-adapter-")

    def _on_save(form: object) -> Iterator[list[Any]]:
        busy = panels.status_line("Writing the adapter…", tone="loading")
        yield [busy, "", gr.skip()]
        try:
            studio = page.source.state.loaded()
            plan = read_form(form, bank=studio.card.bank).plan
            file, difference = _write_adapter(studio, plan, Path(folder.name))
        except Exception as error:
            yield [_plain_status(page), problem_panel(error), None]
            return
        said = f"Loaded again in PEFT, its logits differ from the live blend by at most {difference:.1e}."
        yield [_plain_status(page), panels.panel("note", "The adapter is saved", said), file]

    outputs = [page.status, parts.notice, page.download]
    saved = parts.save.click(_on_save, parts.composer, outputs, **_MODEL)
    page.hand_over(saved)


def _write_adapter(studio: Any, plan: Any, folder: Path) -> tuple[str, float]:
    """An adapter folder as one zip file, and how far it is from the blend."""
    for old in folder.iterdir():
        if time.time() - old.stat().st_mtime > 600:
            old.unlink()
    name = f"blend-{time.strftime('%Y%m%d-%H%M%S')}-{token_hex(2)}"
    with TemporaryDirectory(prefix="lmoe-merge-") as made:
        result = studio.merge(plan, Path(made) / "adapter")
        file = shutil.make_archive(str(folder / name), "zip", made)
    return file, float(result.max_difference)
