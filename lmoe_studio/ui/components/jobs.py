"""Jobs as the browser draws them: the list, one job's head, and what is beside its curves."""

from typing import Any

import gradio as gr

from lmoe_studio.ui.asset_files import read_asset


def build_job_list(**kwargs: Any) -> gr.HTML:
    """A list of jobs; it has an event `choose` with the id of a job. Its value is a `JobList`."""
    return _drawn("joblist.js", **kwargs)


def build_job_head(**kwargs: Any) -> gr.HTML:
    """One job; it has an event `act` with an id and what to do. Its value is a `JobHead`."""
    return _drawn("jobhead.js", **kwargs)


def build_job_details(**kwargs: Any) -> gr.HTML:
    """What is beside a job's curves. Its value is `JobDetails`."""
    return _drawn("jobdetails.js", **kwargs)


def _drawn(script: str, **kwargs: Any) -> gr.HTML:
    return gr.HTML(
        None,
        html_template='<div class="jobs"></div>',
        css_template=read_asset("pieces.css", "jobs.css"),
        js_on_load=read_asset(script),
        apply_default_css=False,
        **kwargs,
    )
