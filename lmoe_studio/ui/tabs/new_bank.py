"""The upper half of the Train tab: what to train, from which texts, with which options."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from lmoe_studio.errors import JobError, LMoEError
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.ui import panels
from lmoe_studio.ui.components.config_loader import build_config_loader, read_loaded
from lmoe_studio.ui.components.sequences import build_sequences, show_sequences
from lmoe_studio.ui.components.skills import build_skills, show_rows
from lmoe_studio.ui.components.training_options import (
    build_training_options,
    show_options,
)
from lmoe_studio.ui.page import Page
from lmoe_studio.ui.problems import problem_panel
from lmoe_studio.ui.tabs.training_jobs import JobParts, looked, turn_to
from lmoe_studio.ui.training.form import (
    Known,
    command,
    config_text,
    form_config,
    read_config_text,
    write_archive,
)
from lmoe_studio.ui.training.options import read_options
from lmoe_studio.ui.training.texts import GivenTexts, read_texts

_QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_TEXTS = {
    "concurrency_id": "texts",  # reading many takes a while, and the model is not needed for it
    "concurrency_limit": 2,
    "show_progress": "hidden",
    "api_visibility": "private",
}
_MOST_LIVING = 8
"""Jobs that run or wait: each is a process."""


@dataclass(frozen=True)
class FormParts:
    """The components that handlers read or write."""

    fold: gr.Accordion
    skills: gr.HTML
    options: gr.HTML
    preview: gr.Button
    start: gr.Button
    notice: gr.HTML
    sequences: gr.HTML
    as_file: gr.Accordion
    code: gr.Code
    command: gr.Textbox
    write: gr.Button
    download: gr.Button
    load: gr.HTML
    file_notice: gr.HTML


def lay_out() -> FormParts:
    """A folded part of the page; it is open where there is no job yet."""
    with gr.Accordion("A new bank", open=True, elem_id="new-bank") as fold:
        gr.HTML(_step(1, "Experts, and texts for each"), apply_default_css=False)
        skills = build_skills(elem_id="skills")
        gr.HTML(_step(2, "How long, and with which options"), apply_default_css=False)
        options = build_training_options(elem_id="options")
        with gr.Accordion(
            "The same as a file and a command", open=False, elem_id="as-file"
        ) as as_file:
            file_notice = gr.HTML(apply_default_css=False, elem_classes="notice")
            code = gr.Code(
                language="yaml", label="config", interactive=False, elem_id="config-code"
            )
            command_line = gr.Textbox(
                label="Beside it", interactive=False, buttons=["copy"], elem_id="config-command"
            )
            with gr.Row(elem_classes="starts"):
                write = gr.Button("Write it anew", size="sm", scale=0, min_width=112)
                download = gr.Button(
                    "Download with the texts", size="sm", scale=0, min_width=168,
                    elem_id="config-download",
                )  # fmt: skip
                load = build_config_loader(scale=0, min_width=112, elem_id="config-load")
        with gr.Row(elem_id="start-row"):
            preview = gr.Button("Preview", scale=0, min_width=112, elem_id="preview")
            start = gr.Button(
                "Start training", variant="primary", scale=0, min_width=148,
                elem_id="start", elem_classes="primary-act",
            )  # fmt: skip
        notice = gr.HTML(apply_default_css=False, elem_id="train-notice", elem_classes="notice")
        sequences = build_sequences(elem_id="sequences")
    return FormParts(
        fold, skills, options, preview, start, notice, sequences, as_file, code, command_line, write,
        download, load, file_notice,
    )  # fmt: skip


def _step(number: int, title: str) -> str:
    return f'<h3 class="step"><span>{number}</span>{panels.safe(title)}</h3>'


def wire(page: Page, form: FormParts, jobs: JobParts) -> None:
    """Connect the form with what it does."""
    _wire_preview(page, form)
    _wire_start(page, form, jobs)
    _wire_file(page, form)

    def _on_open() -> Any:
        try:
            has_jobs = bool(page.jobs.list())
        except LMoEError:
            has_jobs = False
        return gr.update(open=not has_jobs)

    page.app.load(_on_open, None, form.fold, **_QUIET)


@dataclass(frozen=True)
class _Asked:
    """What the form asks for, with its texts as files."""

    config: TrainingConfig
    texts: GivenTexts


def _read(page: Page, folder: str, skills: object, options: object) -> _Asked:
    """Raises DataError or ConfigError."""
    places = page.places()
    texts = read_texts(skills, places, Path(folder))
    name, values = read_options(options)
    known = Known(page.source.bases(), page.source.banks())
    return _Asked(form_config(name, texts, values, places=places, known=known), texts)


def _preview(page: Page, asked: _Asked) -> list[Any]:
    """Read the texts as the run would. Raises DataError, with files called as people call them."""
    from lmoe_studio.training.preview import preview_training  # noqa: PLC0415  (brings torch: seconds)

    studio = page.source.state.studio
    try:
        return preview_training(asked.config, beside=studio and studio.base)
    except LMoEError as error:
        raise type(error)(asked.texts.in_words(str(error))) from None


def _wire_preview(page: Page, form: FormParts) -> None:
    outputs = [form.preview, form.notice, form.sequences]

    def _on_preview(skills: object, options: object) -> Iterator[list[Any]]:
        yield [_busy("Reading…"), "", gr.skip()]
        try:
            with TemporaryDirectory(prefix="lmoe-texts-") as folder:
                asked = _read(page, folder, skills, options)
                previews = _preview(page, asked)
        except Exception as error:
            yield [_ready("Preview"), problem_panel(error), gr.update(value=None)]
            return
        config = asked.config
        drawn = config.steps * config.batch_size * config.gradient_accumulation
        yield [
            _ready("Preview"), "", show_sequences(previews, wanted=-(-drawn // len(config.skills)))
        ]  # fmt: skip

    form.preview.click(_on_preview, [form.skills, form.options], outputs, **_TEXTS)


def _wire_start(page: Page, form: FormParts, jobs: JobParts) -> None:
    outputs = [form.start, form.notice, form.fold, form.sequences, *looked(page, jobs)]
    same = [gr.skip()] * (len(outputs) - 2)

    def _on_start(skills: object, options: object) -> Iterator[list[Any]]:
        yield [_busy("Starting…"), "", *same]
        try:
            with TemporaryDirectory(prefix="lmoe-texts-") as folder:
                job = _start(page, _read(page, folder, skills, options))
        except Exception as error:
            yield [_ready("Start training"), problem_panel(error), *same]
            return
        page.jobs.list(fresh=True)
        shown = turn_to(page, job)
        yield [
            _ready("Start training"), "", gr.update(open=False), gr.update(value=None), *shown
        ]  # fmt: skip

    form.start.click(_on_start, [form.skills, form.options], outputs, **_TEXTS)


def _start(page: Page, asked: _Asked) -> str:
    """Check the texts, then hand everything to a job of its own; gives its id."""
    living = sum(job.is_live for job in page.jobs.list(fresh=True))
    if living >= _MOST_LIVING:
        raise JobError(
            f"{living} jobs run or wait already; let one end, or stop one, and try again."
        )
    _preview(page, asked)  # what cannot be read is better said now than by a job that fails
    return page.jobs.jobs.start(asked.config, copy_data=asked.texts.is_passing).id


def _wire_file(page: Page, form: FormParts) -> None:
    """The form as a file with its command, and back."""

    def _on_write(skills: object, options: object) -> list[Any]:
        try:
            with TemporaryDirectory(prefix="lmoe-texts-") as folder:
                config = _read(page, folder, skills, options).config
                return [config_text(config), command(config), ""]
        except Exception as error:
            return ["", "", problem_panel(error)]

    written = [form.code, form.command, form.file_notice]
    for event in (form.as_file.expand, form.write.click):
        event(_on_write, [form.skills, form.options], written, **_QUIET)

    def _on_download(skills: object, options: object) -> Iterator[list[Any]]:
        try:
            with (
                TemporaryDirectory(prefix="lmoe-texts-") as folder,
                TemporaryDirectory(prefix="lmoe-config-") as made,
            ):
                config = _read(page, folder, skills, options).config
                yield [
                    str(write_archive(config, Path(made))),
                    "",
                ]  # Gradio takes a copy of the file
        except Exception as error:
            yield [None, problem_panel(error)]

    outputs = [page.download, form.file_notice]
    ready = form.download.click(_on_download, [form.skills, form.options], outputs, **_TEXTS)
    page.hand_over(ready)

    def _on_load(event: gr.EventData) -> list[Any]:
        try:
            name, text = read_loaded(event._data)
            config, rows = read_config_text(text, page.places(), source=name)
        except Exception as error:
            return [problem_panel(error), gr.skip(), gr.skip()]
        serial = token_hex(8)
        return [_taken(rows), show_rows(rows, serial=serial), show_options(config, serial=serial)]

    taken = [form.file_notice, form.skills, form.options]
    form.load.given(_on_load, None, taken, trigger_mode="multiple", **_QUIET)


def _taken(rows: list[dict[str, Any]]) -> str:
    """What was taken from a config file, and what is still to be given."""
    without = [row["name"] for row in rows if not row["places"]]
    if not without:
        return panels.panel(
            "note", "The config is loaded", "Its options and texts are in the form."
        )
    names = ", ".join(without)
    return panels.panel(
        "note", "The config is loaded", f"Give the texts again for {names}: a page reads no files by "
        "their paths.",
    )  # fmt: skip


def _busy(text: str) -> Any:
    return gr.update(value=text, interactive=False)


def _ready(text: str) -> Any:
    return gr.update(value=text, interactive=True)
