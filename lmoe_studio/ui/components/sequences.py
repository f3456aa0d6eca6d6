"""What the model will see in a training, token by token, drawn in the browser."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.components.drawn import build_drawn
from lmoe_studio.ui.palette import expert_colour, expert_glyph
from lmoe_studio.ui.training.views import data_words, dropped_words

if TYPE_CHECKING:
    from lmoe_studio.training.preview import SkillPreview

_MOST_TOKENS = 512  # of one sequence, shown


def build_sequences(**kwargs: Any) -> gr.HTML:
    """A place for sequences; `show_sequences` fills it."""
    return build_drawn("sequences", **kwargs)


def show_sequences(previews: Sequence["SkillPreview"], *, wanted: int) -> dict[str, Any]:
    """The update that shows what the model will see; `wanted`: sequences that a run takes of each."""
    skills = [
        {
            "name": clean(preview.report.name),
            "glyph": expert_glyph(index),
            "colour": expert_colour(index),
            "data": data_words(preview.report),
            "repeats": _repeats(preview.report.sequences, wanted),
            "dropped": dropped_words(preview.report.dropped),
            "sequences": [
                [[clean(text), int(is_learned)] for text, is_learned in sequence[:_MOST_TOKENS]]
                for sequence in preview.sequences
            ],
        }
        for index, preview in enumerate(previews)
    ]
    return gr.update(value={"skills": skills})


def _repeats(sequences: int, wanted: int) -> str:
    """How often the run goes over the same texts."""
    many = f"{sequences:,} sequence{'s' if sequences > 1 else ''}"
    if wanted <= sequences:
        return f"{many}, each read once at most"
    return f"{many}, each read about {wanted / sequences:.0f} times"
