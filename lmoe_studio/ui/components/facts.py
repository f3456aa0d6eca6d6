"""What the page's scripts know of the Studio, brought by one component that is always there.

Gradio forgets the properties of a component whose tab was never opened as soon as anything, even a
`gr.skip()`, is sent to it. So nothing that a component needs when it is drawn late is a property:
it stands here, and the scripts ask for it by `onStudio` (`assets/studio.js`).
"""

from collections.abc import Sequence
from typing import Any, TypedDict

import gradio as gr

from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.components.drawn import build_drawn
from lmoe_studio.ui.palette import expert_colour, expert_glyph
from lmoe_studio.ui.source import SourceState


class ExpertFacts(TypedDict):
    """An expert of the loaded bank."""

    name: str
    description: str
    glyph: str
    colour: str


class Facts(TypedDict):
    """What there is at one moment; equal facts are told to a page once."""

    bank: str
    """The loaded bank; empty while there is none."""
    load: int
    """Which load it came with: another one with every bank, also of the same name."""
    is_own: bool
    """Whether the page itself asked for it."""
    experts: list[ExpertFacts]
    bases: list[str]
    """Base models that can be trained on."""
    banks: list[str]
    """Banks that can be loaded."""
    files: list[str]
    """Files of the operator's folder."""
    adapters: list[str]
    """Folders of the operator's folder that hold an adapter."""


def build_facts(**kwargs: Any) -> gr.HTML:
    """The component; its value are `Facts`. It shows when another page has changed the bank."""
    return build_drawn("facts", **kwargs)


def facts_of(
    state: SourceState,
    *,
    asker: str,
    bases: Sequence[str],
    banks: Sequence[str],
    files: Sequence[str],
    adapters: Sequence[str],
) -> Facts:
    """The facts for the page that `asker` stands for."""
    card = state.studio.card if state.studio is not None else None
    return {
        "bank": clean(card.bank) if card else "",
        "load": state.load,
        "is_own": state.loaded_for == asker,
        "experts": [
            {
                "name": clean(expert.name),
                "description": clean(expert.description),
                "glyph": expert_glyph(index),
                "colour": expert_colour(index),
            }
            for index, expert in enumerate(card.experts if card else ())
        ],
        "bases": [clean(each) for each in bases],
        "banks": [clean(each) for each in banks],
        "files": [clean(each) for each in files],
        "adapters": [clean(each) for each in adapters],
    }
