"""Page: what every tab is given to build itself with."""

from dataclasses import dataclass

import gradio as gr

from lmoe_studio.ui.source import StudioSource
from lmoe_studio.ui.traces import TraceStore


@dataclass(frozen=True)
class Page:
    """The parts of the page that tabs share."""

    app: gr.Blocks
    source: StudioSource
    traces: TraceStore
    status: gr.HTML
    """The status line; any handler may write to it."""
    loaded: gr.State
    """Version of the source's state; its `change` tells a tab that a bank came, went or failed."""


def user_of(request: gr.Request) -> str:
    """The name someone logged in with; empty where no password is asked for."""
    return request.username or ""
