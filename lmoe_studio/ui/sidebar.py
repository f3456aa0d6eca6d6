"""The sidebar: what is loaded, and loading another bank."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from lmoe_studio.ui import panels
from lmoe_studio.ui.page import Follower
from lmoe_studio.ui.source import SourceState, StudioSource

OPEN_IF_WIDE = "() => ({ __type__: 'update', open: !isNarrow.matches })"
"""Where there is room, the sidebar is open from the start (`assets/sidebar.js`)."""


_BY_COMMAND = (
    "<p class='import-note'>Or on the command line: "
    "<code>lmoe import --expert NAME=FOLDER --out BANK</code></p>"
)


@dataclass(frozen=True)
class Sidebar:
    """What of the sidebar others need."""

    box: gr.Sidebar
    bank: gr.Dropdown
    load: gr.Button
    follower: Follower


def build_sidebar(source: StudioSource) -> Sidebar:
    """Lay out the sidebar; who polls the source fills it."""
    with gr.Sidebar(open=False, width=290, elem_id="sidebar") as box:
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
        own = gr.Button("Import your own adapters…", size="sm", elem_id="bank-import")
        gr.HTML(_BY_COMMAND, apply_default_css=False)
        own.click(None, None, None, js="() => openImport()", queue=False)

    def show(state: SourceState) -> list[Any]:
        return [
            _card(state),
            gr.update(choices=source.banks(), value=state.bank),
            gr.update(
                value="Loading…" if state.is_loading else "Load bank",
                interactive=not state.is_loading,
            ),
        ]

    return Sidebar(box, bank, load, Follower([card, bank, load], show))


def _card(state: SourceState) -> str:
    if state.studio is not None:
        problem = panels.panel("problem", "Not loaded", state.problem) if state.problem else ""
        return panels.bank_card(state.studio.card) + problem
    if state.problem:
        return panels.empty_card("Choose another bank below, or try this one again.")
    return panels.empty_card(f"Loading {state.bank or 'a bank'}…")
