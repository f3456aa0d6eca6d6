"""Part of the Train tab: a bank of adapters that somebody has, without training."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import gradio as gr

from lmoe_studio.errors import JobError
from lmoe_studio.home import banks_folder
from lmoe_studio.ui.components.adapters import build_adapters
from lmoe_studio.ui.importing.asked import read_asked
from lmoe_studio.ui.importing.desk import ImportDesk, ImportState
from lmoe_studio.ui.importing.told import import_panel
from lmoe_studio.ui.page import Page, say_stopping, user_of
from lmoe_studio.ui.problems import problem_panel
from lmoe_studio.ui.training.form import Known

TITLE = "A bank of adapters that you have"
_NOTE = (
    "<p class='import-note'>PEFT LoRA adapters of one base model become the experts of a bank that routes at "
    "once, without training: the same as <code>lmoe import</code>.</p>"
)
_QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_IMPORT = {"concurrency_id": "import", "concurrency_limit": 4, "show_progress": "hidden",
           "api_visibility": "private"}  # fmt: skip
_LOOK_SECONDS = 0.3


@dataclass(frozen=True)
class ImportParts:
    """The components that handlers read or write."""

    adapters: gr.HTML
    start: gr.Button
    stop: gr.Button
    load: gr.Button
    notice: gr.HTML
    shown: gr.Textbox
    """Mark of what the page shows."""


def lay_out() -> ImportParts:
    """A folded part of the page."""
    with gr.Accordion(TITLE, open=False, elem_id="import-bank", elem_classes="part"):
        gr.HTML(_NOTE, apply_default_css=False)
        adapters = build_adapters(elem_id="adapters")
        with gr.Row(elem_id="import-row"):
            start = gr.Button(
                "Import", variant="primary", scale=0, min_width=112, elem_id="import-start"
            )
            stop = gr.Button(
                "Stop", interactive=False, scale=0, min_width=80, elem_id="import-stop"
            )
            load = gr.Button(
                "Load the bank", visible=False, scale=0, min_width=132, elem_id="import-load"
            )
        notice = gr.HTML(apply_default_css=False, elem_id="import-notice", elem_classes="notice")
    return ImportParts(adapters, start, stop, load, notice, gr.Textbox("", visible=False))


def wire(page: Page, parts: ImportParts) -> None:
    """Connect the form with what it does."""
    desk = ImportDesk(banks_folder)
    outputs = [parts.start, parts.stop, parts.load, parts.notice, parts.shown]

    def look(user: str, shown: object) -> list[Any]:
        """What is new of a visitor's import since the page last looked."""
        state = desk.of(user)
        mark = "" if state is None else _mark(state)
        return [gr.skip()] * len(outputs) if mark == shown or state is None else _views(state, mark)

    def _on_start(said: object, request: gr.Request) -> Iterator[list[Any]]:
        """A page that goes away leaves the import to itself."""
        user, studio = user_of(request), page.source.state.studio
        try:
            known = Known(page.source.bases(), page.source.banks())
            desk.start(user, read_asked(said, page.places(), known), studio and studio.base)
        except Exception as error:
            yield [*[gr.skip()] * 3, problem_panel(error), ""]
            return
        while (state := desk.of(user)) is not None:
            yield _views(state, _mark(state))
            if state.is_over:
                return
            time.sleep(_LOOK_SECONDS)

    def _on_beat(is_open: object, shown: object, request: gr.Request) -> list[Any]:
        return look(user_of(request), shown) if is_open == "open" else [gr.skip()] * len(outputs)

    def _on_stop(request: gr.Request) -> None:
        desk.stop(user_of(request))

    def _on_load(request: gr.Request) -> list[Any]:
        try:
            _load(page, desk.of(user_of(request)), request.session_hash or "")
        except JobError as error:
            return [problem_panel(error), ""]
        return [gr.skip(), token_hex(4)]

    parts.start.click(_on_start, parts.adapters, outputs, **_IMPORT)
    say_stopping(parts.stop)
    parts.stop.click(_on_stop, None, None, **_QUIET)
    is_open = gr.Textbox("", visible=False)
    ask = "(asked, shown) => [isTrainOpen() ? 'open' : '', shown]"
    page.beat.tick(_on_beat, [is_open, parts.shown], outputs, js=ask, **_QUIET)
    loaded = parts.load.click(_on_load, None, [parts.notice, page.bell], **_QUIET)
    loaded.success(None, page.bell, None, js="(bell) => bell && openTab('Explore')", **_QUIET)


def _mark(state: ImportState) -> str:
    return f"{state.id} {state.step} {state.is_stopping}"


def _views(state: ImportState, mark: str) -> list[Any]:
    is_over = state.is_over
    return [
        gr.update(value="Import" if is_over else "Importing…", interactive=is_over),
        gr.update(
            value="Stopping…" if state.is_stopping else "Stop",
            interactive=not (is_over or state.is_stopping),
        ),
        gr.update(visible=bool(state.taken)),
        import_panel(state),
        mark,
    ]


def _load(page: Page, state: ImportState | None, asker: str) -> None:
    """Begin to load the bank that was made. Raises JobError where that cannot be."""
    if state is None or not state.taken:
        raise JobError("There is no bank to load yet; import one first.")
    if not page.source.start(state.bank, asker):
        raise JobError("Another bank is being loaded at the moment; try again when it is there.")
