"""The two plans of a comparison, and the comparison itself, drawn in the browser."""

from typing import Any

import gradio as gr

from lmoe_studio.ui.asset_files import read_asset
from lmoe_studio.ui.compared import ComparisonView


def build_picker(**kwargs: Any) -> gr.HTML:
    """A choice of plan A and plan B; its value is read by `read_picks`."""
    return gr.HTML(
        None,
        html_template='<div class="picker"></div>',
        css_template=read_asset("pieces.css", "picker.css"),
        js_on_load=read_asset("picker.js"),
        apply_default_css=False,
        experts=[],
        **kwargs,
    )


def build_comparison(**kwargs: Any) -> gr.HTML:
    """A place for a comparison or a sweep, empty until `show_comparison` fills it."""
    return gr.HTML(
        None,
        html_template='<div class="comparison"></div>',
        css_template=read_asset("pieces.css", "workbench.css", "comparison.css"),
        js_on_load=read_asset("comparison.js"),
        apply_default_css=False,
        **kwargs,
    )


def show_comparison(view: ComparisonView | None) -> dict[str, Any]:
    """The update that shows a comparison; None empties its place."""
    return gr.update(value=view)
