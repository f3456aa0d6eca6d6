"""What the page and its parts give each other."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from lmoe_studio.ui.runs import RunBook
from lmoe_studio.ui.source import SourceState, StudioSource
from lmoe_studio.ui.traces import TraceStore
from lmoe_studio.ui.training.texts import Places
from lmoe_studio.ui.training.watch import JobWatch

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
    jobs: JobWatch
    training: gr.HTML
    """What trains at the moment, beside the status line."""
    beat: gr.Timer
    """Ticks as long as the page is open, so that it sees what others do."""
    bell: gr.Textbox
    """Rung by whoever asks the source for another bank: any new text."""
    download: gr.DownloadButton
    """Hidden; holds the file that `hand_over` gives."""
    place: gr.Tab | None = None
    """The tab that is being built."""
    data_folder: Path | None = None
    """The folder whose files the operator allows to train on."""
    runs: RunBook = field(default_factory=RunBook)
    """Which runs can be stopped."""

    def at_first_look(
        self,
        kept: gr.BrowserState,
        outputs: list[Any],
        bring_back: Callable[[object, str], dict[Any, Any]],
    ) -> None:
        """Bring back what a tab showed before a reload, once: when it is opened first.

        Args:
            kept: what the browser keeps of it.
            outputs: what may be written to.
            bring_back: kept value and user to values of some outputs.
        """
        assert self.place is not None, "only a tab is opened"
        has_looked = gr.State(False)

        def _on_select(looked: object, value: object, request: gr.Request) -> dict[Any, Any]:
            found = {} if looked is True else bring_back(value, user_of(request))
            return {has_looked: True, **found}

        self.place.select(
            _on_select, [has_looked, kept], [has_looked, *outputs], queue=False,
            show_progress="hidden", api_visibility="private",
        )  # fmt: skip

    def wire_stop(self, button: gr.Button, run: gr.State) -> None:
        """Let a button stop the run whose id `run` holds."""

        def _on_stop(run: object, request: gr.Request) -> None:
            self.runs.stop(user_of(request), run)

        say_stopping(button)
        button.click(
            _on_stop, run, None, queue=False, show_progress="hidden", api_visibility="private"
        )

    def hand_over(self, made: Any) -> None:
        """After an event that put a file into `download`, let the browser save it.

        The button is pressed once its file is there; by itself it would give the one before.
        """
        press = "(file) => file && document.querySelector('#download')?.click()"
        made.then(
            None, self.download, None, js=press, queue=False, show_progress="hidden",
            api_visibility="private",
        )  # fmt: skip

    def places(self) -> Places:
        """Where the texts of a training may be taken from."""
        return Places(Path(get_upload_folder()), self.data_folder)


@dataclass(frozen=True)
class Follower:
    """Components that change when a bank comes, goes or fails to load."""

    outputs: list[Any]
    show: Callable[[SourceState], list[Any]]
    """New values of `outputs`."""


def say_stopping(button: gr.Button) -> None:
    """Let a Stop button say that it was pressed.

    It says so by itself: told by the Studio, that could come after the end of the run, and stay.
    """
    stopping = "() => ({ __type__: 'update', interactive: false, value: 'Stopping…' })"
    button.click(
        None, None, button, js=stopping, queue=False, show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip


def user_of(request: gr.Request) -> str:
    """The name someone logged in with; empty where no password is asked for."""
    return request.username or ""
