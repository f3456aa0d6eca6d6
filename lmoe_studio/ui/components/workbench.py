"""The workbench: token strip, heatmap, bars and legend around one selection, drawn in the browser.

Python sends one payload a trace. Every viewing act is answered in the page; only exact numbers of
the selected cell are asked for, by the event `pick`, and come back as the property `exact`.
"""

from functools import cache
from typing import Any

import gradio as gr

from lmoe_studio.ui.asset_files import read_asset
from lmoe_studio.ui.payload import ExactCell, TracePayload

_SCRIPTS = (
    "view.js",
    "tokens.js",
    "strip.js",
    "heatmap.js",
    "detail.js",
    "controls.js",
    "workbench.js",
)


def build_workbench(**kwargs: Any) -> gr.HTML:
    """An empty workbench; it has an event `pick` and is filled by `show_trace`.

    A function, because Gradio writes a stub file beside the source of every new component class.
    The template is constant, because data put through Gradio's templates is run as JavaScript.
    """
    return gr.HTML(
        None,
        html_template='<div class="workbench"></div>',
        css_template=_css(),
        js_on_load=_script(),
        apply_default_css=False,
        exact=None,
        **kwargs,
    )


def show_trace(payload: TracePayload) -> dict[str, Any]:
    """The update that makes a workbench show a trace."""
    return gr.update(value=payload, exact=None, visible=True)


def show_exact(cell: ExactCell) -> dict[str, Any]:
    """The update that brings the exact numbers of the selected cell."""
    return gr.update(exact=cell)


def show_gone(key: str) -> dict[str, Any]:
    """The update that says the server holds a trace no longer."""
    return gr.update(exact={"id": key, "gone": True})


@cache
def _css() -> str:
    return read_asset("workbench.css")


@cache
def _script() -> str:
    return read_asset(*_SCRIPTS)
