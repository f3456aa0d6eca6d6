"""Buttons that give a studied run as a file: each says how large it is, and the writing can stop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any

import gradio as gr

from lmoe_studio.errors import LMoEError
from lmoe_studio.ui import panels
from lmoe_studio.ui.page import Page, user_of
from lmoe_studio.ui.run_export import FORMATS, RunFormat, sizes, write_run
from lmoe_studio.ui.runs import in_background
from lmoe_studio.ui.studies import KeptStudy, StudyStore

_NAMES: dict[RunFormat, str] = {
    "parquet": "Parquet", "csv.gz": "CSV, gzipped", "csv": "CSV", "jsonl": "JSONL",
    "html": "Report (HTML)",
}  # fmt: skip
_NOTE = (
    "<p class='export-note'>Every row of the run. Parquet is exact and the smallest; spreadsheets open CSV "
    "of up to 1,048,576 rows.</p>"
)
_GONE = "The Studio has let go of this study; study the texts again, then export it."


@dataclass(frozen=True)
class Surroundings:
    """What else of the tab an export reads or writes."""

    key: Any
    """Holds the id of the study that is shown."""
    shown: gr.HTML
    """Changes when another study is shown."""
    notice: gr.HTML
    stop: gr.Button
    run: gr.State
    """Holds the id of what `stop` ends."""


def build_exports() -> dict[RunFormat, gr.Button]:
    """The row of buttons."""
    gr.HTML(_NOTE, apply_default_css=False)
    with gr.Row(elem_id="study-exports"):
        return {
            kind: gr.Button(_NAMES[kind], size="sm", scale=0, min_width=96, elem_id=_id_of(kind))
            for kind in FORMATS
        }


def wire_exports(
    page: Page, buttons: dict[RunFormat, gr.Button], around: Surroundings, studies: StudyStore
) -> None:
    """Let every button write its file and hand it over."""

    def _on_shown(key: object, request: gr.Request) -> list[Any]:
        kept = studies.get(user_of(request), key)
        found = sizes(kept) if kept else {}
        return [gr.update(value=_label(kind, found.get(kind))) for kind in FORMATS]

    around.shown.change(
        _on_shown, around.key, [buttons[kind] for kind in FORMATS], queue=False,
        show_progress="hidden", api_visibility="private",
    )  # fmt: skip
    outputs = [page.download, around.notice, around.stop, around.run]
    for kind, button in buttons.items():
        made = button.click(
            _exporter(page, kind, studies), around.key, outputs, show_progress="hidden",
            api_visibility="private",
        )  # fmt: skip
        page.hand_over(made)


def _exporter(page: Page, kind: RunFormat, studies: StudyStore) -> Callable[..., Any]:
    def _on_export(key: object, request: gr.Request) -> Iterator[list[Any]]:
        kept = studies.get(user_of(request), key)
        if kept is None:
            panel = panels.panel("problem", "Nothing to export", _GONE)
            yield [None, panel, gr.skip(), gr.skip()]
            return
        with page.runs.running(user_of(request)) as (run, stop):
            yield [None, "", gr.update(interactive=True, value="Stop"), run]
            try:
                file = yield from _written(kept, kind, stop)
                notice = "" if file else panels.panel("note", "Stopped", "No file was written.")
            except (LMoEError, OSError) as error:
                file, notice = None, panels.panel("problem", "The export failed", str(error))
            yield [file, notice, gr.update(interactive=False, value="Stop"), ""]

    return _on_export


def _written(kept: KeptStudy, kind: RunFormat, stop: Event) -> Iterator[list[Any]]:
    """Tell the page how far the file is, and give its path; None where it was stopped."""
    share = [0.0]

    def work() -> str | None:
        path = write_run(
            kept, kind, on_progress=lambda done: share.__setitem__(0, done), should_stop=stop.is_set
        )
        return str(path) if path else None

    going = in_background(work, stop)
    title = f"Writing the run as {_NAMES[kind]}"
    while True:
        try:
            seconds = next(going)
        except StopIteration as end:
            return end.value
        try:
            panel = panels.progress_panel(f"{title}, {seconds:.0f} s", "", share[0])
            yield [gr.skip(), panel, gr.skip(), gr.skip()]
        except GeneratorExit:
            going.close()
            raise


def _label(kind: RunFormat, size: int | None) -> str:
    if size is None:
        return _NAMES[kind]
    about = "" if kind == "parquet" else "about "
    return f"{_NAMES[kind]} · {about}{_in_units(size)}"


def _in_units(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{max(1, size / 1e3):,.0f} kB"


def _id_of(kind: RunFormat) -> str:
    return f"export-{kind.replace('.', '-')}"
