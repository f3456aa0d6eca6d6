"""The curves of a job as the browser draws them: plain values, every string clean."""

from collections.abc import Mapping
from typing import TypedDict

from lmoe_studio.jobs.job import Job
from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.palette import expert_colour, expert_glyph
from lmoe_studio.ui.training.lines import Line
from lmoe_studio.ui.training.watch import Progress

_INK, _MUTED = "var(--wb-ink)", "var(--wb-muted)"  # of the page, in either theme
_FEWEST_POINTS = 2
_MOST_POINTS = 960  # of all lines of a plot: a page is sent them with every new step
_MOST_SHARES = 120  # shares of single steps jump about; a mean of several says more


class CurveLine(TypedDict):
    """One line; its letter tells apart what a colour does not."""

    name: str
    glyph: str
    """Of an expert; empty for others."""
    colour: str
    is_reference: bool
    """Whether it is only there to be compared with."""
    points: list[tuple[int, float]]
    """(step, value), by rising step."""


class Curve(TypedDict):
    """One plot over the steps of a job."""

    id: str
    title: str
    is_share: bool
    """Whether the values are parts of one, to be seen against zero."""
    lines: list[CurveLine]


class JobCurves(TypedDict):
    """The plots of a job."""

    id: str
    steps: int
    curves: list[Curve]
    """None before there are enough steps for a line."""


def job_curves(job: Job, progress: Progress) -> JobCurves:
    """Losses and shares of the routing, as far as the job has told of them."""
    curves = [_losses(progress), _shares(progress)]
    return {
        "id": job.id,
        "steps": job.steps,
        "curves": curves if len(progress.loss) >= _FEWEST_POINTS else [],
    }


def _losses(progress: Progress) -> Curve:
    """Training loss, the base model's mean as reference, held-out loss of each expert's texts."""
    most = _MOST_POINTS // (2 + len(progress.held_out))
    lines = [_line("training", _INK, progress.loss, most)]
    if progress.base is not None and progress.step is not None:
        flat = Line()
        for step in (0, progress.step.step):
            flat.add(step, progress.base.base_mean)
        lines.append(_line("base model", _MUTED, flat, most, is_reference=True))
    lines += _of_experts(progress, progress.held_out, most)
    return {"id": "job-loss", "title": "loss, nats a token", "is_share": False, "lines": lines}


def _shares(progress: Progress) -> Curve:
    """Share of the routing of each expert."""
    most = min(_MOST_SHARES, _MOST_POINTS // max(1, len(progress.shares)))
    lines = _of_experts(progress, progress.shares, most)
    return {"id": "job-shares", "title": "share of the routing", "is_share": True, "lines": lines}


def _of_experts(progress: Progress, lines: Mapping[str, Line], most: int) -> list[CurveLine]:
    """The lines of the experts that have one, with the letters and colours they have everywhere."""
    return [
        _line(name, expert_colour(index), lines[name], most, glyph=expert_glyph(index))
        for index, name in enumerate(progress.experts)
        if name in lines
    ]


def _line(
    name: str, colour: str, line: Line, most: int, *, glyph: str = "", is_reference: bool = False
) -> CurveLine:
    return {
        "name": clean(name),
        "glyph": glyph,
        "colour": colour,
        "is_reference": is_reference,
        "points": [(step, round(value, 4)) for step, value in line.points(most)],
    }
