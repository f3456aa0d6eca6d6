"""Jobs as the page draws them: plain values, every string clean; the browser puts them in as text."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NotRequired, TypedDict

from lmoe_studio.jobs.job import Job, JobState
from lmoe_studio.training.events import GroupHealth, SkillReport
from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.palette import expert_colour, expert_glyph
from lmoe_studio.ui.training.watch import Progress

_MOST_NAMED = 4  # experts, in a sentence


class JobRow(TypedDict):
    """A job in the list."""

    id: str
    name: str
    state: str
    progress: str
    share: float
    when: str


class JobList(TypedDict):
    """All jobs, and which one the page looks at."""

    jobs: list[JobRow]
    chosen: str
    problem: str


class JobHead(TypedDict):
    """One job: its state, how far it is, and what can be done with it."""

    id: str
    name: str
    state: str
    says: str
    facts: list[str]
    step: int
    steps: int
    acts: list[str]
    """Of stop, open, resume, remove."""
    stopping: bool
    answered: NotRequired[str]
    """Marks the answer to a button, so that it is news in any case."""


class SkillRow(TypedDict):
    """One expert: its held-out loss before and now, its share of the routing, and its data."""

    name: str
    glyph: str
    colour: str
    base: float | None
    bank: float | None
    share: float | None
    data: str
    dropped: str


class Light(TypedDict):
    """How the routers of some layers do."""

    layers: str
    health: str
    says: str


class JobDetails(TypedDict):
    """Everything beside the curves."""

    id: str
    skills: list[SkillRow]
    measured: str
    lights: list[Light]
    log: list[str]
    open_log: bool


def job_list(jobs: Sequence[Job], chosen: str, problem: str = "") -> JobList:
    """All jobs, the newest first."""
    return {"jobs": [_row(job) for job in jobs], "chosen": chosen, "problem": clean(problem)}


def _row(job: Job) -> JobRow:
    return {
        "id": job.id,
        "name": clean(job.name),
        "state": job.state.value,
        "progress": f"{job.step:,}/{job.steps:,}",
        "share": job.step / job.steps if job.steps else 0.0,
        "when": job.created,
    }


def job_head(job: Job, progress: Progress, jobs: Sequence[Job], *, stopping: bool) -> JobHead:
    """One job, in words."""
    acts = ["stop"] if job.is_live else ["remove"]
    if job.can_resume:
        acts.insert(0, "resume")
    if job.bank is not None:
        acts.insert(0, "open")
    return {
        "id": job.id,
        "name": clean(job.name),
        "state": job.state.value,
        "says": clean(_sentence(job, progress, jobs, stopping=stopping)),
        "facts": [clean(fact) for fact in _facts(job, progress)],
        "step": job.step,
        "steps": job.steps,
        "acts": acts,
        "stopping": stopping,
    }


def _sentence(job: Job, progress: Progress, jobs: Sequence[Job], *, stopping: bool) -> str:
    match job.state:
        case JobState.QUEUED:
            busy = next((other for other in jobs if other.state is JobState.RUNNING), None)
            before = f"'{busy.name}' trains at the moment" if busy else "its turn comes in a moment"
            return (
                f"It waits for its turn: {before}. You may close the page; it stays in the queue."
            )
        case JobState.RUNNING if stopping:
            return "It stops after the step it is at, and saves."
        case JobState.RUNNING:
            return _doing(job, progress)
        case JobState.DONE if job.bank is None:
            return "It was done, and its bank is not there any more."
        case JobState.DONE:
            return "The bank is ready; load it to see what its experts do."
        case JobState.FAILED:
            return job.reason or "It failed; the log below says where."
        case JobState.CANCELLED:
            saved = "Resume it, and it goes on from there." if job.step else "Resume it to begin."
            return f"It was stopped after step {job.step:,} of {job.steps:,} and saved. {saved}"
        case JobState.INTERRUPTED:
            return job.reason or "Its process is gone; resume it to go on from its last checkpoint."


def _doing(job: Job, progress: Progress) -> str:
    """What a running job does; what it told of before its turn came is of an earlier run."""
    if progress.heard < (job.started or ""):
        return "Starting…"
    if progress.step is None or not progress.is_stepping:
        return f"{progress.message or 'Starting'}…"
    left = duration(progress.step.seconds_left)
    return f"About {left} left. You may close the page; training goes on."


def _facts(job: Job, progress: Progress) -> list[str]:
    facts = [f"step {job.step:,} of {job.steps:,}"]
    if progress.step is not None:
        facts.append(f"training loss {progress.step.language_loss:.2f}")
        if job.state is JobState.RUNNING and progress.is_stepping:
            facts.append(f"{progress.step.tokens_per_second:,.0f} tokens/s")
    if progress.evaluation is not None and progress.base is not None:
        told = progress.evaluation
        facts.append(f"held-out loss {told.mean:.2f} (base model {told.base_mean:.2f})")
    if progress.saved and not job.state.is_live and job.state is not JobState.DONE:
        facts.append(f"saved at step {progress.saved:,}")
    seconds = _seconds_taken(job)
    if seconds is not None:
        facts.append(f"{'took' if job.ended else 'for'} {duration(seconds)}")
    if progress.refused:
        facts.append(f"a checkpoint was damaged ({progress.refused}); an older one was used")
    return facts


def _seconds_taken(job: Job) -> float | None:
    if job.started is None or (job.ended is None and not job.is_live):
        return None
    end = datetime.fromisoformat(job.ended) if job.ended else datetime.now(UTC)
    return max(0.0, (end - datetime.fromisoformat(job.started)).total_seconds())


def duration(seconds: float) -> str:
    """A time for people: rough, as it is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def job_details(job: Job, progress: Progress, log: Sequence[str]) -> JobDetails:
    """Experts, lights and log of one job."""
    told = progress.evaluation
    measured = ""
    if told is not None:
        over = "over all held-out texts" if told.final else "over a few held-out texts of each"
        measured = f"nats a token after step {told.step:,}, {over}"
    return {
        "id": job.id,
        "skills": _skills(progress),
        "measured": measured,
        "lights": [_light(group) for group in progress.step.health] if progress.step else [],
        "log": [clean(line) for line in log],
        "open_log": job.state is JobState.FAILED,
    }


def _skills(progress: Progress) -> list[SkillRow]:
    reports = {report.name: report for report in progress.data}
    bank = progress.evaluation.bank if progress.evaluation else {}
    base = progress.evaluation.base if progress.evaluation else {}
    shares = progress.step.shares if progress.step else {}
    return [
        {
            "name": clean(name),
            "glyph": expert_glyph(index),
            "colour": expert_colour(index),
            "base": base.get(name),
            "bank": bank.get(name),
            "share": shares.get(name),
            "data": data_words(reports.get(name)),
            "dropped": dropped_words(reports[name].dropped) if name in reports else "",
        }
        for index, name in enumerate(progress.experts)
    ]


def data_words(report: SkillReport | None) -> str:
    """What was read for an expert."""
    if report is None:
        return ""
    return f"{report.texts:,} texts, {report.held_out_texts:,} held out, {report.tokens:,} tokens"


def dropped_words(dropped: Mapping[str, int]) -> str:
    """What was left out or changed, and why; empty where nothing was."""
    return ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)


def _light(group: GroupHealth) -> Light:
    dead = [_short(name) for name in group.dead_experts]
    more = f" and {len(dead) - _MOST_NAMED} more" if len(dead) > _MOST_NAMED else ""
    unused = f", unused: {', '.join(dead[:_MOST_NAMED])}{more}" if dead else ""
    most = f"most to {_short(group.top_expert)} ({group.max_share:.0%})"
    return {
        "layers": f"layers {group.layers}",
        "health": group.health,
        "says": clean(f"{most}, evenness {group.entropy:.2f}{unused}"),
    }


def _short(name: str, longest: int = 24) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def training_line(jobs: Sequence[Job], loss: float | None) -> str:
    """What trains at the moment, in a few words for every tab; empty where nothing does."""
    running = next((job for job in jobs if job.state is JobState.RUNNING), None)
    waiting = sum(job.state is JobState.QUEUED for job in jobs)
    more = f" · {waiting} queued" if waiting else ""
    if running is None:
        return f"{waiting} job{'s' if waiting > 1 else ''} queued" if waiting else ""
    at = f" (loss {loss:.2f})" if loss is not None else ""
    return clean(f"{running.name}: training step {running.step:,}/{running.steps:,}{at}{more}")
