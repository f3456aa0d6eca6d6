"""The lower half of the Train tab: jobs, how they go, and what can be done with them.

The page looks at them again and again; every look is answered from what is on disk, so a reload, a
restart of the Studio and a second visitor all see the same. What the page shows already, it says,
as it stands there: an answer that comes late, or to a tab that is closed, is made good by the next.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_hex
from typing import Any

import gradio as gr

from lmoe_studio.errors import JobError, LMoEError
from lmoe_studio.jobs.job import Job, JobState
from lmoe_studio.plain_data import read_json
from lmoe_studio.ui import panels
from lmoe_studio.ui.clean_text import typed
from lmoe_studio.ui.components.jobs import (
    build_job_curves,
    build_job_details,
    build_job_head,
    build_job_list,
)
from lmoe_studio.ui.page import Page
from lmoe_studio.ui.problems import problem_panel
from lmoe_studio.ui.training.curves import job_curves
from lmoe_studio.ui.training.views import job_details, job_head, job_list, training_line

_QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_BUSY_SECONDS, _IDLE_SECONDS = 1.0, 3.0
_LOG_LINES = 200
_LONGEST_ID = 40
_NOTHING_SHOWN = "[]"

_ASK = "(asked, chosen) => [askForJobs(), chosen]"


@dataclass(frozen=True)
class JobParts:
    """The components that handlers read or write."""

    box: gr.Row
    empty: gr.HTML
    notice: gr.HTML
    list: gr.HTML
    head: gr.HTML
    curves: gr.HTML
    details: gr.HTML
    asked: gr.Textbox
    """Marks of what the page shows, as JSON; empty while the tab is closed. The browser fills it in."""
    chosen: gr.Textbox
    """Id of the job that the page looks at."""


def lay_out() -> JobParts:
    """The list at the left, the chosen job beside it."""
    gr.HTML("<h2>Jobs</h2>", apply_default_css=False, elem_classes="section-title")
    notice = gr.HTML(apply_default_css=False, elem_id="jobs-notice", elem_classes="notice")
    empty = gr.HTML(_invitation(), apply_default_css=False, elem_id="jobs-empty")
    with gr.Row(visible=False, elem_id="jobs-box") as box:
        with gr.Column(scale=1, min_width=200):
            jobs = build_job_list(elem_id="jobs")
        with gr.Column(scale=4, min_width=480, elem_id="job"):
            head = build_job_head(elem_id="job-head")
            curves = build_job_curves(elem_id="curves")
            details = build_job_details(elem_id="job-details")
    return JobParts(
        box, empty, notice, jobs, head, curves, details,
        *(gr.Textbox("", visible=False) for _ in range(2)),
    )  # fmt: skip


def _invitation() -> str:
    return panels.panel(
        "note",
        "No job yet",
        "A job trains a bank in a process of its own: it goes on when you close the page, and when "
        "the Studio is started anew it is found again.",
    )


def looked(page: Page, parts: JobParts) -> list[Any]:
    """What every look may change, in the order that `look` gives it."""
    return [
        page.training, page.beat, parts.box, parts.empty, parts.list, parts.head, parts.curves,
        parts.details, parts.chosen,
    ]  # fmt: skip


def look(page: Page, asked: str, chosen: str) -> list[Any]:
    """Look at the jobs; gives what the page does not show yet."""
    try:
        jobs = page.jobs.list()
        line = _line(page, jobs)
    except LMoEError as error:
        return _unreadable(str(error))
    seconds = _BUSY_SECONDS if any(job.is_live for job in jobs) else _IDLE_SECONDS
    head = [panels.training_status(line), gr.update(value=seconds)]
    if not asked:
        return [*head, *[gr.skip()] * 7]
    job = next((job for job in jobs if job.id == chosen), jobs[0] if jobs else None)
    shown = _Shown(asked)
    return [
        *head,
        gr.update(visible=bool(jobs)),
        "" if jobs else _invitation(),
        shown.new(job_list(jobs, job.id if job else "")),
        *(_look_at(page, job, jobs, shown) if job else [gr.skip()] * 3),
        job.id if job and job.id != chosen else gr.skip(),
    ]


def turn_to(page: Page, job: str) -> list[Any]:
    """Look at a job that the page has not looked at before; the newest, where there is no such job.

    A look that was under way leaves the choice alone, so it is given only here.
    """
    *values, newest = look(page, _NOTHING_SHOWN, job)
    return [*values, newest if isinstance(newest, str) else job]


def _look_at(page: Page, job: Job, jobs: Sequence[Job], shown: "_Shown") -> list[Any]:
    """Head, curves and details of one job."""
    log = page.jobs.log(job.id, _LOG_LINES)
    with page.jobs.progress(job.id) as progress:
        head = job_head(job, progress, jobs, stopping=page.jobs.is_stopping(job.id))
        curves = job_curves(job, progress)
        details = job_details(job, progress, log)
    return [shown.new(head), shown.new(curves), shown.new(details)]


def _line(page: Page, jobs: Sequence[Job]) -> str:
    """What trains at the moment, for the top of the page."""
    running = next((job for job in jobs if job.state is JobState.RUNNING), None)
    if running is None:
        return training_line(jobs, None)
    with page.jobs.progress(running.id) as progress:
        return training_line(jobs, progress.step.language_loss if progress.step else None)


def _unreadable(problem: str) -> list[Any]:
    """Jobs that cannot be read: the reason stands in the list's place."""
    notice = panels.panel("problem", "The jobs cannot be read", problem)
    return [panels.training_status(""), gr.skip(), gr.skip(), notice, *[gr.skip()] * 5]


class _Shown:
    """What the page shows, by marks that stand beside it; what says nonsense is given it all."""

    def __init__(self, asked: str) -> None:
        try:
            marks = read_json(typed(asked))
        except (TypeError, ValueError):
            marks = []
        self._marks = marks if isinstance(marks, list) else []

    def new(self, value: Mapping[str, Any]) -> Any:
        """The value with its mark, if the page does not show it."""
        mark = sha256(json.dumps(value).encode()).hexdigest()[:12]
        return gr.skip() if mark in self._marks else {**value, "mark": mark}


def wire(page: Page, parts: JobParts) -> None:
    """Look now and then, and do what is asked for."""
    outputs = looked(page, parts)

    def _on_look(asked: str, chosen: str) -> list[Any]:
        return look(page, asked, chosen)

    def _on_open_page(request: gr.Request) -> list[Any]:
        asked_for = str(request.query_params.get("job", ""))[:_LONGEST_ID]
        return turn_to(page, asked_for)

    beat = page.beat.tick(_on_look, [parts.asked, parts.chosen], outputs, js=_ASK, **_QUIET)
    beat.success(None, None, None, js="() => studioAnswered()", **_QUIET)
    opened = page.app.load(_on_open_page, None, outputs, **_QUIET)
    opened.success(None, None, None, js=_OPEN_FROM_ADDRESS, **_QUIET)

    def _on_choose(chosen: str) -> list[Any]:
        return turn_to(page, typed(chosen)[:_LONGEST_ID])

    parts.list.choose(
        _on_choose, parts.chosen, outputs, js="() => lmoeChoice", trigger_mode="always_last",
        **_QUIET,
    )  # fmt: skip

    def _on_act(event: gr.EventData, chosen: str, request: gr.Request) -> list[Any]:
        job, what = _said(event, "id"), _said(event, "act")
        bell, notice = "", ""
        try:
            _act(page, job, what, request.session_hash or "")
            bell = token_hex(4) if what == "open" else ""
        except Exception as error:
            notice = problem_panel(error)
        page.jobs.list(fresh=True)
        shown = look(page, _NOTHING_SHOWN, chosen)
        at = outputs.index(parts.head)
        if isinstance(shown[at], dict) and "acts" in shown[at]:  # also where nothing has changed
            shown[at] = {**shown[at], "answered": token_hex(4)}
        return [notice, bell, *shown]

    acted = parts.head.act(
        _on_act, parts.chosen, [parts.notice, page.bell, *outputs], trigger_mode="multiple",
        **_QUIET,
    )  # fmt: skip
    acted.success(None, page.bell, None, js="(bell) => bell && openTab('Explore')", **_QUIET)


def _said(event: gr.EventData, key: str) -> str:
    said = event._data
    value = said.get(key) if isinstance(said, dict) else None
    return value[:_LONGEST_ID] if isinstance(value, str) else ""


def _act(page: Page, job: str, what: str, asker: str) -> None:
    """Do what was asked for, for the page `asker` stands for. Raises LMoEError where it cannot be done."""
    match what:
        case "stop":
            page.jobs.stop(job)
        case "resume":
            page.jobs.jobs.resume(job)
        case "remove":
            page.jobs.jobs.remove(job)
        case "open":
            _load(page, page.jobs.jobs.get(job), asker)
        case _:
            raise JobError(f"There is nothing called '{what}' to do with a job.")


def _load(page: Page, job: Job, asker: str) -> None:
    """Begin to load a job's bank; whoever uses the one before keeps it until it is there."""
    if job.bank is None:
        raise JobError(f"Job {job.id} has no bank to load; it is {job.state}.")
    if not page.source.start(job.name, asker):
        raise JobError("Another bank is being loaded at the moment; try again when it is there.")


_OPEN_FROM_ADDRESS = "() => new URLSearchParams(location.search).has('job') && openTab('Train')"
