"""The composer: mixer, list of overrides and presets, drawn in the browser; its value is a plan."""

from typing import Any

import gradio as gr

from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.components.drawn import build_drawn
from lmoe_studio.ui.plan_form import plan_overrides
from lmoe_studio.ui.theme import expert_colour, expert_glyph


def build_composer(**kwargs: Any) -> gr.HTML:
    """A composer without experts; `show_experts` brings them. `read_form` reads its value."""
    return build_drawn("composer", experts=[], imported=None, **kwargs)


def show_experts(names: list[tuple[str, str]]) -> dict[str, Any]:
    """The update that gives a composer its rows; `names` and descriptions in the bank's order."""
    return gr.update(
        experts=[
            {
                "name": clean(name),
                "description": clean(description),
                "glyph": expert_glyph(index),
                "colour": expert_colour(index),
            }
            for index, (name, description) in enumerate(names)
        ],
    )


def show_plan(plan: RoutingPlan, *, serial: str) -> dict[str, Any]:
    """The update that puts a plan in the place of what there was; `serial` tells two apart."""
    return gr.update(imported={"overrides": plan_overrides(plan), "serial": serial})
