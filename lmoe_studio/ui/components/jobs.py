"""Jobs as the browser draws them: the list, one job's head, and what is beside its curves."""

from typing import Any

import gradio as gr

from lmoe_studio.ui.components.drawn import build_drawn


def build_job_list(**kwargs: Any) -> gr.HTML:
    """A list of jobs; it has an event `choose`. Its value is a `JobList`."""
    return build_drawn("jobs", script="joblist", events=("choose",), **kwargs)


def build_job_head(**kwargs: Any) -> gr.HTML:
    """One job; it has an event `act` with an id and what to do. Its value is a `JobHead`."""
    return build_drawn("jobs", script="jobhead", events=("act",), **kwargs)


def build_job_curves(**kwargs: Any) -> gr.HTML:
    """A job's losses and shares of the routing by step. Its value are `JobCurves`."""
    return build_drawn("jobs", script="jobcurves", **kwargs)


def build_job_details(**kwargs: Any) -> gr.HTML:
    """What is beside a job's curves. Its value is `JobDetails`."""
    return build_drawn("jobs", script="jobdetails", **kwargs)
