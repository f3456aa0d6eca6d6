"""The lower half of the Train tab: jobs, how they go, and what can be done with them.

The page looks at them again and again; every look is answered from what is on disk, so a reload, a
restart of the Studio and a second visitor all see the same. What the page shows already, it says.
"""

import json
from collections.abc import Sequence
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
from lmoe_studio.ui.components.jobs import build_job_details, build_job_head, build_job_list
from lmoe_studio.ui.page import Page
from lmoe_studio.ui.problems import problem_panel
from lmoe_studio.ui.training.views import (
    experts_of,
    job_details,
    job_head,
    job_list,
    legend,
    line_colours,
    loss_lines,
    share_lines,
    training_line,
)
from lmoe_studio.ui.training.watch import Progress

_QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_BUSY_SECONDS, _IDLE_SECONDS = 1.0, 3.0
_LOG_LINES = 200
_FEWEST_POINTS = 2
_LONGEST_ID = 40

_ASK = "(asked, chosen, shown) => [isTrainOpen() ? 'open' : '', chosen, shown]"


@dataclass(frozen=True)
class JobParts:
    """The components that handlers read or write."""

    box: gr.Row
    empty: gr.HTML
    notice: gr.HTML
    list: gr.HTML
    head: gr.HTML
    curves: gr.Row
    loss: gr.LinePlot
    shares: gr.LinePlot
    details: gr.HTML
    asked: gr.Textbox
    """Whether the tab is open; the browser fills it in."""
    chosen: gr.Textbox
    """Id of the job that the page looks at."""
    shown: gr.Textbox
    """Marks of what the page shows, as JSON."""


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
            with gr.Row(visible=False, elem_id="curves") as curves:
                loss = _curve("loss", "loss, nats a token", "job-loss")
                shares = _curve("share", "share of the routing", "job-shares")
            details = build_job_details(elem_id="job-details")
    return JobParts(
        box, empty, notice, jobs, head, curves, loss, shares, details,
        *(gr.Textbox("", visible=False) for _ in range(3)),
    )  # fmt: skip


def _curve(value: str, title: str, elem_id: str) -> gr.LinePlot:
    """Stays mounted while it grows."""
    return gr.LinePlot(
        x="step", y=value, color="line", x_title="step", y_title=title, color_title=" ",
        tooltip="axis", height=260, show_label=False, elem_id=elem_id, min_width=280,
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
        parts.loss, parts.shares, parts.details, parts.chosen, parts.shown,
    ]  # fmt: skip


def look(page: Page, asked: str, chosen: str, shown: str) -> list[Any]:
    """Look at the jobs; gives what is new since the page last looked."""
    seen = _Seen(shown)
    try:
        jobs = page.jobs.list()
        line = _line(page, jobs)
    except LMoEError as error:
        return _unreadable(seen, str(error))
    is_live = any(job.is_live for job in jobs)
    seconds = _BUSY_SECONDS if is_live else _IDLE_SECONDS
    head = [
        seen.new("line", line, panels.training_status(line)),
        seen.new("beat", seconds, gr.update(value=seconds)),
    ]
    if asked != "open":
        return [*head, *[gr.skip()] * 9, seen.text]
    has_jobs = bool(jobs)
    job = next((job for job in jobs if job.id == chosen), jobs[0] if jobs else None)
    listed = job_list(jobs, job.id if job else "")
    return [
        *head,
        seen.new("box", has_jobs, gr.update(visible=has_jobs)),
        seen.new("empty", has_jobs, "" if has_jobs else _invitation()),
        seen.new("list", listed, listed),
        *(_look_at(page, job, jobs, seen) if job else [gr.skip()] * 5),
        job.id if job and job.id != chosen else gr.skip(),
        seen.text,
    ]


def turn_to(page: Page, job: str, shown: str = "") -> list[Any]:
    """Look at a job that the page has not looked at before; the newest, where there is no such job.

    A look that was under way leaves the choice alone, so it is given only here.
    """
    *values, newest, marks = look(page, "open", job, shown)
    return [*values, newest if isinstance(newest, str) else job, marks]


def _look_at(page: Page, job: Job, jobs: Sequence[Job], seen: "_Seen") -> list[Any]:
    """Head, curves and details of one job."""
    log = page.jobs.log(job.id, _LOG_LINES)
    with page.jobs.progress(job.id) as progress:
        head = job_head(job, progress, jobs, stopping=page.jobs.is_stopping(job.id))
        details = job_details(job, progress, log)
        curves = _curves(job, progress, seen)
    return [
        seen.new("head", head, head), *curves, seen.new("details", details, details)
    ]  # fmt: skip


def _curves(job: Job, progress: Progress, seen: "_Seen") -> list[Any]:
    """The curves: hidden, their lines, and only then in sight.

    A plot in sight takes new points, but keeps the names and colours that it came with.
    """
    if seen.is_new("curves of", job.id):
        seen.forget("lines")
    stands = seen.knows("lines")
    told = (len(progress.loss), sum(map(len, progress.held_out.values())), progress.cursor)
    lines = [gr.skip(), gr.skip()]
    if len(progress.loss) >= _FEWEST_POINTS and seen.is_new("lines", told):
        experts = experts_of(progress)
        named = legend(experts)
        looks: dict[str, Any] = {"x_lim": [0, job.steps], "color_map": line_colours(experts)}
        loss, shares = loss_lines(progress, experts), share_lines(progress, experts)
        lines = [
            gr.LinePlot(loss, colors_in_legend=named, **looks),
            gr.LinePlot(shares, colors_in_legend=named and [], y_lim=[0, None], **looks),
        ]
    return [seen.new("curves", (job.id, stands), gr.update(visible=stands)), *lines]


def _line(page: Page, jobs: Sequence[Job]) -> str:
    """What trains at the moment, for the top of the page."""
    running = next((job for job in jobs if job.state is JobState.RUNNING), None)
    if running is None:
        return training_line(jobs, None)
    with page.jobs.progress(running.id) as progress:
        return training_line(jobs, progress.step.language_loss if progress.step else None)


def _unreadable(seen: "_Seen", problem: str) -> list[Any]:
    """Jobs that cannot be read: the reason stands in the list's place."""
    notice = panels.panel("problem", "The jobs cannot be read", problem)
    return [
        seen.new("line", "", panels.training_status("")), gr.skip(), gr.skip(),
        seen.new("empty", problem, notice), *[gr.skip()] * 7, seen.text,
    ]  # fmt: skip


class _Seen:
    """What the page shows already, by marks that it keeps; a page that says nonsense gets it all."""

    def __init__(self, text: str) -> None:
        try:
            marks = read_json(typed(text))
        except (TypeError, ValueError):
            marks = {}
        self._marks = marks if isinstance(marks, dict) else {}

    @property
    def text(self) -> str:
        return json.dumps(self._marks)

    def is_new(self, name: str, value: Any) -> bool:
        """Note a value; says whether the page had another one."""
        mark = sha256(json.dumps(value, default=str).encode()).hexdigest()[:12]
        is_new = self._marks.get(name) != mark
        self._marks[name] = mark
        return is_new

    def knows(self, name: str) -> bool:
        """Whether the page has any value of that name."""
        return name in self._marks

    def forget(self, name: str) -> None:
        """Let the page get the next value in any case."""
        self._marks.pop(name, None)

    def new(self, name: str, value: Any, update: Any) -> Any:
        """The update, if the page has not seen the value yet."""
        return update if self.is_new(name, value) else gr.skip()


def wire(page: Page, parts: JobParts) -> None:
    """Look now and then, and do what is asked for."""
    outputs = looked(page, parts)
    inputs = [parts.asked, parts.chosen, parts.shown]

    def _on_look(asked: str, chosen: str, shown: str) -> list[Any]:
        return look(page, asked, chosen, shown)

    def _on_open_page(request: gr.Request) -> list[Any]:
        asked_for = str(request.query_params.get("job", ""))[:_LONGEST_ID]
        return turn_to(page, asked_for)

    beat = page.beat.tick(_on_look, inputs, outputs, js=_ASK, **_QUIET)
    beat.success(None, None, None, js="() => studioAnswered()", **_QUIET)
    opened = page.app.load(_on_open_page, None, outputs, **_QUIET)
    opened.success(None, None, None, js=_OPEN_FROM_ADDRESS, **_QUIET)
    look_again(page, parts, opened)

    def _on_choose(event: gr.EventData, shown: str) -> list[Any]:
        return turn_to(page, _said(event, "id"), shown)

    chosen = parts.list.choose(_on_choose, parts.shown, outputs, trigger_mode="multiple", **_QUIET)
    look_again(page, parts, chosen)

    def _on_act(event: gr.EventData, chosen: str, request: gr.Request) -> list[Any]:
        job, what = _said(event, "id"), _said(event, "act")
        bell, notice = "", ""
        try:
            _act(page, job, what, request.session_hash or "")
            bell = token_hex(4) if what == "open" else ""
        except Exception as error:
            notice = problem_panel(error)
        page.jobs.list(fresh=True)
        shown = look(page, "open", chosen, "")
        at = outputs.index(parts.head)
        if isinstance(shown[at], dict) and "acts" in shown[at]:  # also where nothing has changed
            shown[at] = {**shown[at], "answered": token_hex(4)}
        return [notice, bell, *shown]

    acted = parts.head.act(
        _on_act, parts.chosen, [parts.notice, page.bell, *outputs], trigger_mode="multiple",
        **_QUIET,
    )  # fmt: skip
    acted.success(None, page.bell, None, js="(bell) => bell && openTab('Explore')", **_QUIET)


def look_again(page: Page, parts: JobParts, event: Any) -> None:
    """After an event that turned to another job, look once more: its curves come in sight then."""

    def _on_turned(chosen: str, shown: str) -> list[Any]:
        return look(page, "open", chosen, shown)

    event.success(_on_turned, [parts.chosen, parts.shown], looked(page, parts), **_QUIET)


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
