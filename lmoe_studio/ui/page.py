"""What the page and its parts give each other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lmoe_studio.ui.source import SourceState, StudioSource
from lmoe_studio.ui.traces import TraceStore


@dataclass(frozen=True)
class Page:
    """What a tab is given to build itself with."""

    app: gr.Blocks
    source: StudioSource
    traces: TraceStore
    status: gr.HTML
    """The status line; any handler may write to it."""


@dataclass(frozen=True)
class Follower:
    """Components that change when a bank comes, goes or fails to load."""

    outputs: list[Any]
    show: Callable[[SourceState], list[Any]]
    """New values of `outputs`."""


def user_of(request: gr.Request) -> str:
    """The name someone logged in with; empty where no password is asked for."""
    return request.username or ""
