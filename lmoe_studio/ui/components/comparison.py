"""The two plans of a comparison, and the comparison itself, drawn in the browser."""

from typing import Any

import gradio as gr

from lmoe_studio.ui.compared import ComparisonView
from lmoe_studio.ui.components.drawn import build_drawn


def build_picker(**kwargs: Any) -> gr.HTML:
    """A choice of plan A and plan B; its value is read by `read_picks`."""
    return build_drawn("picker", **kwargs)


def build_comparison(**kwargs: Any) -> gr.HTML:
    """A place for a comparison or a sweep, empty until `show_comparison` fills it."""
    return build_drawn("comparison", **kwargs)


def show_comparison(view: ComparisonView) -> dict[str, Any]:
    """The update that shows a comparison."""
    return gr.update(value=view)


def show_no_comparison(why: str) -> dict[str, Any]:
    """The update that says why a comparison that was there before is not shown again."""
    return gr.update(value={"gone": why})
