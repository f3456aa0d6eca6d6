"""Compose's plan as JSON: out of the composer, and into it."""

from secrets import token_hex
from typing import Any

import gradio as gr

from lmoe_studio.ui.clean_text import typed
from lmoe_studio.ui.components.composer import show_plan
from lmoe_studio.ui.page import Page
from lmoe_studio.ui.plan_form import plan_text, read_form, read_plan_text
from lmoe_studio.ui.problems import problem_panel

_QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def build_json(page: Page, composer: gr.HTML) -> None:
    """A folded part of the page with the plan as text."""
    with gr.Accordion("Plan as JSON", open=False, elem_id="plan-json"):
        text = gr.Textbox(
            show_label=False, container=False, lines=6, max_lines=16, buttons=["copy"],
            placeholder="Paste a plan here, or write the present one.", elem_id="plan-text",
        )  # fmt: skip
        with gr.Row(elem_classes="starts"):
            export_plan = gr.Button("Write the present plan here", size="sm", scale=0)
            import_plan = gr.Button("Use this plan", size="sm", scale=0)
        notice = gr.HTML(apply_default_css=False, elem_classes="notice")

    def _on_export(form: object) -> list[Any]:
        try:
            return [plan_text(read_form(form).plan), ""]
        except Exception as error:
            return [gr.skip(), problem_panel(error)]

    def _on_import(text: str) -> list[Any]:
        try:
            plan = read_plan_text(typed(text))
            if page.source.state.studio is not None:
                page.source.state.studio.check_plan(plan)
        except Exception as error:
            return [gr.skip(), problem_panel(error)]
        return [show_plan(plan, serial=token_hex(8)), ""]

    export_plan.click(_on_export, composer, [text, notice], **_QUIET)
    import_plan.click(_on_import, text, [composer, notice], **_QUIET)
