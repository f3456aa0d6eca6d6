"""The editor of an import: adapters with their names, the bank, its base and its router, in the browser."""

from typing import Any

import gradio as gr

from lmoe_studio.config import EMBEDDED_BASE
from lmoe_studio.ui.components.drawn import build_drawn
from lmoe_studio.ui.importing.asked import MOST_ADAPTERS, PARTS, PICKLE
from lmoe_studio.ui.palette import EXPERT_COLOURS
from lmoe_studio.ui.request_body import MOST_FILE_BYTES

_ROUTERS = ("arrow", "uniform")
_ABOUT_ROUTERS = (
    "arrow routes by the directions that the adapters amplify; uniform gives all the same weight."
)


def build_adapters(**kwargs: Any) -> gr.HTML:
    """An editor without adapters yet; `read_asked` reads its value."""
    setup = {
        "most": MOST_ADAPTERS,
        "mostBytes": MOST_FILE_BYTES,
        "parts": PARTS,
        "pickle": PICKLE,
        "base": EMBEDDED_BASE,
        "routers": _ROUTERS,
        "aboutRouters": _ABOUT_ROUTERS,
        "colours": EXPERT_COLOURS,
    }
    return build_drawn("adapters", setup=setup, **kwargs)
