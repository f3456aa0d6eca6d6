"""Analyse: trace a corpus, and see which expert handles what, and where in the network."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from analysis import FrameError
from lmoe_studio.errors import DataError
from lmoe_studio.ui import panels
from lmoe_studio.ui.clean_text import typed
from lmoe_studio.ui.corpus_columns import (
    AUTOMATIC,
    NO_LABELS,
    choices,
    chosen_corpus,
    columns_of,
    given_corpus,
    must_choose,
    which_column,
)
from lmoe_studio.ui.exports.bar import build_bar, wire_bar
from lmoe_studio.ui.exports.exportable import Exportable
from lmoe_studio.ui.exports.sources import study_export
from lmoe_studio.ui.file_names import in_words
from lmoe_studio.ui.page import Follower, Page, user_of
from lmoe_studio.ui.problems import problem_panel
from lmoe_studio.ui.report import table_html
from lmoe_studio.ui.runs import in_background
from lmoe_studio.ui.source import SourceState
from lmoe_studio.ui.studies import (
    KeptStudy,
    StudyStore,
    make_study,
    nothing_given,
    pandas_code,
)
from lmoe_studio.ui.study import SECTIONS, Section

TITLE = "Analyse"
KEPT = {"study": ""}

_QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_STUDY = {
    "concurrency_id": "study",  # beside the model's own queue: between batches others may use it
    "concurrency_limit": 1,
    "show_progress": "hidden",
    "api_visibility": "private",
}
_ROWS_SHOWN = 60


@dataclass(frozen=True)
class Answer:
    """Where one question's answer is shown."""

    box: gr.Column
    plot: gr.Plot
    table: gr.HTML


@dataclass(frozen=True)
class Parts:
    """The tab's components that handlers read or write."""

    pasted: gr.Textbox
    file: gr.File
    text_column: gr.Dropdown
    label_column: gr.Dropdown
    max_tokens: gr.Number
    start: gr.Button
    stop: gr.Button
    notice: gr.HTML
    findings: gr.HTML
    answers: dict[str, Answer]
    more: gr.Column
    code: gr.Code
    exports: gr.HTML
    run: gr.State


def build(page: Page) -> Follower:
    """Lay out the tab and wire it."""
    parts, studies = _lay_out(), StudyStore()
    _wire_columns(parts)
    _wire_study(page, parts, studies)

    def exports_of(user: str, key: object) -> dict[str, Exportable]:
        kept = studies.get(user, key)
        return {"routing": study_export(kept)} if kept else {}

    wire_bar(page, parts.exports, page.kept["study"], exports_of)

    def show(state: SourceState) -> list[Any]:
        return [gr.update(interactive=state.studio is not None)]

    return Follower([parts.start], show)


def _lay_out() -> Parts:
    with gr.Row(elem_id="corpus"):
        pasted = gr.Textbox(
            label="Texts to study",
            placeholder="One text a line; or JSONL or CSV with a column for labels.",
            lines=6,
            max_lines=10,
            max_length=500_000,
            scale=3,
            elem_id="corpus-text",
        )
        file = gr.File(
            label="Or a file: .jsonl, .csv, .parquet, .txt",
            file_types=[".jsonl", ".csv", ".parquet", ".txt"],
            height=150,
            scale=2,
            elem_id="corpus-file",
        )
    with gr.Row(elem_id="corpus-options"):
        text_column = gr.Dropdown(
            [AUTOMATIC], value=AUTOMATIC, label="Texts are in", scale=2, elem_id="text-column"
        )
        label_column = gr.Dropdown(
            [AUTOMATIC, NO_LABELS], value=AUTOMATIC, label="Labels are in", scale=2,
            elem_id="label-column",
        )  # fmt: skip
        max_tokens = gr.Number(256, label="Tokens of a text at most", precision=0, minimum=1)
        start = gr.Button(
            "Study", variant="primary", interactive=False, elem_id="study", min_width=112, scale=0
        )
        stop = gr.Button("Stop", interactive=False, elem_id="study-stop", min_width=80, scale=0)
    notice = gr.HTML(_invitation(), apply_default_css=False, elem_id="study-notice")
    findings = gr.HTML(apply_default_css=False, elem_id="findings")
    answers = {name: _lay_out_answer(name, title, note) for name, title, note in SECTIONS}
    with gr.Column(visible=False, elem_id="study-more") as more:
        with gr.Accordion("The same in pandas", open=False):
            code = gr.Code(language="python", label="pandas", interactive=False)
    exports = build_bar(elem_id="study-exports")
    return Parts(
        pasted, file, text_column, label_column, max_tokens, start, stop, notice, findings, answers,
        more, code, exports, gr.State(""),
    )  # fmt: skip


def _invitation() -> str:
    return panels.panel(
        "note",
        "Which expert handles what?",
        "Give some texts, with a label for each if there are any: their skill, language or source. "
        "The study says which expert each label has, in which layers, and how sure that is.",
    )


def _lay_out_answer(name: str, title: str, note: str) -> Answer:
    with gr.Column(visible=False, elem_id=f"answer-{name}", elem_classes="answer") as box:
        gr.HTML(f"<h2>{panels.safe(title)}</h2><p>{panels.safe(note)}</p>", apply_default_css=False)
        plot = gr.Plot(show_label=False, visible=name != "health")
        with gr.Accordion("Table", open=name == "health"):
            table = gr.HTML(apply_default_css=False, elem_classes="study-table")
    return Answer(box, plot, table)


def _wire_columns(parts: Parts) -> None:
    def _on_corpus(pasted: str, uploaded: str | None) -> list[Any]:
        """Offer the columns there are; what cannot be read says so when it is studied."""
        try:
            columns = columns_of(typed(pasted), uploaded)
        except DataError:
            columns = {}
        labels = [AUTOMATIC, NO_LABELS, *choices(columns)]
        if must_choose(columns):
            ask = panels.panel("note", "Which column holds the texts?", which_column(columns))
            texts = gr.update(choices=choices(columns), value=None)
            return [texts, gr.update(choices=labels, value=AUTOMATIC), ask]
        return [
            gr.update(choices=[AUTOMATIC, *choices(columns)], value=AUTOMATIC),
            gr.update(choices=labels, value=AUTOMATIC),
            gr.skip(),
        ]

    outputs = [parts.text_column, parts.label_column, parts.notice]
    for event in (parts.pasted.blur, parts.file.change):
        event(_on_corpus, [parts.pasted, parts.file], outputs, **_QUIET)


def _wire_study(page: Page, parts: Parts, studies: StudyStore) -> None:
    flat = [part for each in parts.answers.values() for part in (each.box, each.plot, each.table)]
    outputs = [
        page.status, parts.notice, parts.start, parts.stop, parts.run, parts.findings, *flat,
        parts.more, parts.code, page.kept["study"],
    ]  # fmt: skip
    inputs = [
        parts.pasted, parts.file, parts.text_column, parts.label_column, parts.max_tokens,
    ]  # fmt: skip

    def _on_study(
        pasted: str,
        uploaded: str | None,
        text_column: str | None,
        label_column: str | None,
        max_tokens: float | None,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        """Closed by Gradio when the page is left, which stops the run as well."""
        user, state = user_of(request), page.source.state
        if state.studio is None:
            return
        with page.runs.running(user) as (run, stop):
            yield _begun(page, parts, run)
            folder, names = studies.new_folder(), dict[Path, str]()
            try:
                path = given_corpus(typed(pasted), uploaded, folder)
                if path is None:
                    raise nothing_given()
                names = {path: path.name if uploaded else "the pasted text", folder: "the study"}
                corpus = chosen_corpus(path, text_column, label_column)
                limit = int(max_tokens or state.studio.card.context_length)
                seen = _Seen()

                def work() -> KeptStudy | None:
                    return make_study(
                        state.studio, corpus, folder, max_tokens=limit, stop=stop,  # pyright: ignore[reportArgumentType]
                        on_progress=seen.hear, on_step=seen.step,
                    )  # fmt: skip

                going = in_background(work, stop)
                try:
                    while True:
                        seconds = next(going)
                        yield {parts.notice: seen.shown(seconds)}
                except StopIteration as ended:
                    kept: KeptStudy | None = ended.value
                if kept is None:
                    yield _ended(page, parts, panels.panel("note", "Stopped", "Nothing was kept."))
                    return
                kept = replace(kept, code=pandas_code(corpus, limit, state.studio.card.bank))
                yield {
                    **_ended(page, parts, ""),
                    **_shown(parts, kept),
                    page.kept["study"]: studies.put(user, kept),
                }
            except (DataError, FrameError) as error:
                title = "The corpus cannot be studied"
                told = in_words(str(error), names)
                yield _ended(page, parts, panels.panel("problem", title, told))
            except Exception as error:
                yield _ended(page, parts, problem_panel(error))

    parts.start.click(_on_study, inputs, outputs, **_STUDY)
    page.wire_stop(parts.stop, parts.run)

    def bring_back(key: object, user: str) -> dict[Any, Any]:
        kept = studies.get(user, key)
        if kept is not None:
            return {parts.notice: "", **_shown(parts, kept)}
        gone = "The Studio no longer has the study that was shown here; study the texts again."
        return {parts.notice: panels.panel("note", "The study is gone", gone)} if key else {}

    page.at_first_look(
        page.kept["study"],
        [parts.notice, parts.findings, *flat, parts.more, parts.code],
        bring_back,
    )


class _Seen:
    """How far a study is, as a panel with a bar; written by its thread, read by the page."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._share = 0.0
        self._title, self._text = "Tracing the texts", "Reading the corpus"

    def hear(self, progress: Any) -> None:
        self._share = progress.share
        seconds = time.perf_counter() - self._started
        left = seconds / self._share * (1 - self._share) if self._share else 0
        self._text = (
            f"{progress.texts:,} of {progress.of_texts:,} texts · {progress.tokens:,} tokens · "
            f"about {left:.0f} s left"
        )

    def step(self, name: str) -> None:
        self._title, self._text, self._share = "Studying the run", name, 1.0

    def shown(self, seconds: float) -> str:
        return panels.progress_panel(f"{self._title}, {seconds:.0f} s", self._text, self._share)


def _begun(page: Page, parts: Parts, run: str) -> dict[Any, Any]:
    hidden = {answer.box: gr.update(visible=False) for answer in parts.answers.values()}
    return {
        page.status: panels.status_line("Studying a corpus…", tone="loading"),
        parts.notice: _Seen().shown(0),
        parts.start: gr.update(value="Studying…", interactive=False),
        parts.stop: gr.update(value="Stop", interactive=True),
        parts.run: run,
        parts.findings: "",
        parts.more: gr.update(visible=False),
        **hidden,
    }


def _ended(page: Page, parts: Parts, notice: str) -> dict[Any, Any]:
    studio = page.source.state.studio
    return {
        page.status: panels.status_line(f"Ready · {studio.card.bank}" if studio else "No model"),
        parts.notice: notice,
        parts.start: gr.update(value="Study", interactive=studio is not None),
        parts.stop: gr.update(value="Stop", interactive=False),
    }


def _shown(parts: Parts, kept: KeptStudy) -> dict[Any, Any]:
    study = kept.study
    facts = "".join(
        f"<dt>{panels.safe(name)}</dt><dd>{panels.safe(value)}</dd>"
        for name, value in study.facts.items()
    )
    found = "".join(f"<li>{panels.safe(answer)}</li>" for answer in study.answers)
    values: dict[Any, Any] = {
        parts.findings: f'<section class="findings"><h2>Findings</h2><ul>{found}</ul>'
        f"<dl>{facts}</dl></section>",
        parts.more: gr.update(visible=True),
        parts.code: kept.code,
    }
    by_name = {section.name: section for section in study.sections}
    for name, answer in parts.answers.items():
        values |= _shown_answer(answer, by_name.get(name))
    return values


def _shown_answer(answer: Answer, section: Section | None) -> dict[Any, Any]:
    if section is None:
        return {answer.box: gr.update(visible=False)}
    return {
        answer.box: gr.update(visible=True),
        answer.plot: gr.update(value=section.figure, visible=section.figure is not None),
        answer.table: table_html(section.table, most=_ROWS_SHOWN),
    }
