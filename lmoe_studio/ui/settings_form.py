"""The fields for how to generate: length, sampling, seed, chat template."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from lmoe_studio.ui.writing import Settings

_QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class SettingsForm:
    """The fields, in the order that `read_settings` takes them."""

    inputs: list[Any]


def build_settings(elem_id: str) -> SettingsForm:
    """Lay out the fields in a folded part of the page."""
    default = Settings()
    with gr.Accordion("Length, sampling, seed", open=False, elem_id=elem_id):
        with gr.Row(elem_classes="settings"):
            length = gr.Number(
                default.max_new_tokens,
                label="New tokens, at most",
                precision=0,
                min_width=120,
            )
            greedy = gr.Checkbox(
                True, label="Always the likeliest token", info="Off: sampled", min_width=190
            )
            temperature = gr.Number(
                0.8, label="Temperature", step=0.1, interactive=False, min_width=100
            )
            seed = gr.Number(0, label="Seed", precision=0, min_width=100)
            chat = gr.Checkbox(
                default.chat, label="Chat template", info="Off: raw text", min_width=150
            )
    greedy.change(None, greedy, temperature, js=_ONLY_WHEN_SAMPLED, **_QUIET)
    return SettingsForm([length, greedy, temperature, seed, chat])


_ONLY_WHEN_SAMPLED = "(greedy) => ({interactive: !greedy, __type__: 'update'})"
