"""The composer: mixer, list of overrides and presets, drawn in the browser; its value is a plan."""

from typing import Any

import gradio as gr

from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.ui.components.drawn import build_drawn
from lmoe_studio.ui.plan_form import plan_overrides


def build_composer(**kwargs: Any) -> gr.HTML:
    """A composer for the loaded bank's experts. `read_form` reads its value."""
    return build_drawn("composer", answers=("imported",), **kwargs)


def show_plan(plan: RoutingPlan, *, serial: str) -> dict[str, Any]:
    """The update that puts a plan in the place of what there was; `serial` tells two apart."""
    return gr.update(imported={"overrides": plan_overrides(plan), "serial": serial})
