"""The editor of the experts to train: a name, a description and texts for each, in the browser."""

from typing import Any

import gradio as gr

from lmoe_studio.ui.components.drawn import build_drawn
from lmoe_studio.ui.palette import EXPERT_COLOURS
from lmoe_studio.ui.training.example import EXAMPLE
from lmoe_studio.ui.training.texts import MOST_EXPERTS, SUFFIXES


def build_skills(**kwargs: Any) -> gr.HTML:
    """An editor with two blank experts; its value is a list of rows for `read_texts`."""
    setup = {
        "most": MOST_EXPERTS,
        "suffixes": SUFFIXES,
        "colours": EXPERT_COLOURS,
        "example": EXAMPLE,
    }
    return build_drawn("skills", setup=setup, answers=("imported",), **kwargs)


def show_rows(rows: list[dict[str, Any]], *, serial: str) -> dict[str, Any]:
    """The update that puts experts in the place of what there was; `serial` tells two apart."""
    return gr.update(imported={"rows": rows, "serial": serial})
