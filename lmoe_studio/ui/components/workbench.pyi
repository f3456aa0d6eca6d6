"""Workbench: token strip, heatmap, bars and legend around one selection, drawn in the browser.

Python sends one payload a trace. Every viewing act is answered in the page; only exact numbers of
the selected cell are asked for, by the `pick` event, and come back as the property `exact`.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import gradio as gr

from lmoe_studio.ui.asset_files import read_asset
from lmoe_studio.ui.payload import ExactCell, TracePayload

_SCRIPTS = ("view.js", "tokens.js", "strip.js", "heatmap.js", "detail.js", "controls.js", "workbench.js")

from gradio.events import Dependency

class Workbench(gr.HTML):
    """Shows one trace.

    The template is constant: data put through Gradio's templates would be run as JavaScript.
    """

    if TYPE_CHECKING:
        pick: Any  # Gradio makes this method from the event's name in the script

    def __init__(
        self,
        value: TracePayload | None = None,
        *,
        exact: ExactCell | dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        fixed = {
            "html_template": '<div class="workbench"></div>',
            "css_template": _css(),
            "js_on_load": _script(),
            "apply_default_css": False,
        }
        super().__init__(value=value, exact=exact, **(kwargs | fixed))

    def preprocess(self, payload: Any) -> None:
        """The page sends nothing back by value; what it asks for comes with `pick`."""

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


@cache
def _css() -> str:
    return read_asset("workbench.css")


@cache
def _script() -> str:
    return read_asset(*_SCRIPTS)