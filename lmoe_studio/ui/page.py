"""What the page and its parts give each other."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from lmoe_studio.ui.runs import RunBook
from lmoe_studio.ui.source import SourceState, StudioSource
from lmoe_studio.ui.traces import TraceStore

_STORAGE = "lmoe-studio"
"""Prefix of what the browser keeps; also its fixed "secret", so that a restart loses nothing."""


def kept(name: str, default: Any) -> gr.BrowserState:
    """Something that the browser keeps. Inside a tab it is read only once that tab is opened."""
    return gr.BrowserState(default, storage_key=f"{_STORAGE}-{name}", secret=_STORAGE)


@dataclass(frozen=True)
class Page:
    """What a tab is given to build itself with."""

    app: gr.Blocks
    source: StudioSource
    traces: TraceStore
    status: gr.HTML
    """The status line; any handler may write to it."""
    kept: dict[str, gr.BrowserState]
    """What tabs let the browser keep, by name."""
    runs: RunBook = field(default_factory=RunBook)
    """Which runs can be stopped."""


@dataclass(frozen=True)
class Follower:
    """Components that change when a bank comes, goes or fails to load."""

    outputs: list[Any]
    show: Callable[[SourceState], list[Any]]
    """New values of `outputs`."""


def user_of(request: gr.Request) -> str:
    """The name someone logged in with; empty where no password is asked for."""
    return request.username or ""
