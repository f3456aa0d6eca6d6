"""The sidebar: what is loaded, and loading another bank."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from lmoe_studio.ui import panels
from lmoe_studio.ui.source import SourceState, StudioSource


@dataclass(frozen=True)
class Sidebar:
    """The sidebar's parts that follow the state of the source."""

    source: StudioSource
    card: gr.HTML
    bank: gr.Dropdown
    load: gr.Button

    @property
    def outputs(self) -> list[Any]:
        return [self.card, self.bank, self.load]

    def show(self, state: SourceState) -> list[Any]:
        """New values of `outputs`."""
        button = "Loading…" if state.is_loading else "Load bank"
        return [
            _card(state),
            gr.update(choices=self.source.banks(), value=state.bank),
            gr.update(value=button, interactive=not state.is_loading),
        ]


def build_sidebar(source: StudioSource) -> Sidebar:
    """Lay out the sidebar; who polls the source fills it."""
    with gr.Sidebar(width=290, elem_id="sidebar"):
        card = gr.HTML(
            panels.empty_card("The Studio is starting."), apply_default_css=False, elem_id="bank"
        )
        bank = gr.Dropdown(
            label="Load another bank",
            info="A name from the list, or the path of a bank folder.",
            choices=[],
            allow_custom_value=True,
            elem_id="bank-name",
        )
        load = gr.Button("Load bank", size="sm", interactive=False, elem_id="bank-load")
    return Sidebar(source, card, bank, load)


def _card(state: SourceState) -> str:
    if state.studio is not None:
        problem = panels.panel("problem", "Not loaded", state.problem) if state.problem else ""
        return panels.bank_card(state.studio.card) + problem
    if state.problem:
        return panels.empty_card("Choose another bank below, or try this one again.")
    return panels.empty_card(f"Loading {state.bank or 'a bank'}…")
