"""build_app: the whole page over a source of studios. A new tab is one line in `TABS`."""

from pathlib import Path
from typing import Any

import gradio as gr

from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.ui import panels
from lmoe_studio.ui.page import Follower, Page, kept
from lmoe_studio.ui.sidebar import Sidebar, build_sidebar
from lmoe_studio.ui.source import SourceState, StudioSource
from lmoe_studio.ui.tabs import analyse, compare, compose, explore, train
from lmoe_studio.ui.traces import TraceStore
from lmoe_studio.ui.training.watch import JobWatch

TABS = (explore, compose, compare, analyse, train)
"""Modules with a `TITLE` and a `build(page) -> Follower`, from left to right; what a module lists
in `KEPT`, by name with its default, the browser keeps."""

_POLL_SECONDS = 0.4
_BEAT_SECONDS = 3.0
_EXPORTS_CHECKED_EVERY, _EXPORTS_KEPT_FOR = 3600, 24 * 3600


def build_app(
    source: StudioSource, jobs: Jobs | None = None, *, data_folder: Path | None = None
) -> gr.Blocks:
    """The interface, ready to launch; it starts no loading by itself.

    Args:
        source: where the loaded studio comes from.
        jobs: the background jobs that the page shows; None takes those of the home folder.
        data_folder: files in it may be trained on.
    """
    with gr.Blocks(
        title="L-MoE Studio",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(_EXPORTS_CHECKED_EVERY, _EXPORTS_KEPT_FOR),
    ) as app:
        with gr.Row(elem_id="top"):
            gr.HTML(panels.header(), apply_default_css=False)
            status = gr.HTML(
                panels.status_line("Connecting…", tone="loading"),
                js_on_load="element.setAttribute('role', 'status')",
                apply_default_css=False,
                elem_id="status",
            )
            training = gr.HTML("", apply_default_css=False, elem_id="training-status")
        remembered = {
            name: kept(name, default)
            for tab in TABS
            for name, default in getattr(tab, "KEPT", {}).items()
        }
        page = Page(
            app, source, TraceStore(), status, remembered, JobWatch(jobs or Jobs()), training,
            beat=gr.Timer(_BEAT_SECONDS), bell=gr.Textbox("", visible=False),
            download=gr.DownloadButton(visible="hidden", elem_id="download"), data_folder=data_folder,
        )  # fmt: skip
        sidebar = build_sidebar(source)
        followers = [sidebar.follower]
        with gr.Tabs(elem_id="tabs"):
            for tab in TABS:
                with gr.Tab(tab.TITLE):
                    followers.append(tab.build(page))
        _follow_source(page, sidebar, followers)
    return app


def _follow_source(page: Page, sidebar: Sidebar, followers: list[Follower]) -> None:
    """Poll often while something loads; otherwise look now and then what other pages have done."""
    timer = gr.Timer(_POLL_SECONDS, active=False)
    seen = gr.State((-1, ()))
    outputs = [seen, timer, page.status, *(part for each in followers for part in each.outputs)]
    bank = outputs.index(sidebar.bank)

    def _on_look(known: tuple[int, tuple[str, ...]]) -> Any:
        state, banks = page.source.state, tuple(page.source.banks())
        shown: list[Any] = [gr.skip()] * len(outputs)
        if state.version != known[0]:
            values = [value for each in followers for value in each.show(state)]
            shown = [gr.skip(), gr.update(active=state.is_loading), status_of(state), *values]
        elif banks != known[1]:  # a job has made one
            shown[bank] = gr.update(choices=banks)
        shown[0] = (state.version, banks)
        return shown

    def _on_open() -> Any:
        return _on_look((-1, ()))

    def _on_load(bank: str | None) -> Any:
        if bank and bank.strip():
            page.source.start(bank.strip())
        return _on_open()

    quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    page.app.load(_on_open, None, outputs, **quiet)
    for clock in (timer, page.beat):
        clock.tick(_on_look, seen, outputs, **quiet)
    page.bell.change(_on_open, None, outputs, **quiet)
    sidebar.load.click(_on_load, sidebar.bank, outputs, **quiet)


def status_of(state: SourceState) -> str:
    """The status line for what the source is doing."""
    if state.progress is not None:
        return panels.status_line(f"Loading {state.bank}: {state.progress}", tone="loading")
    if state.studio is None or state.problem is not None:
        return panels.status_line(f"Could not load {state.bank}", tone="problem")
    return panels.status_line(f"Ready · {state.studio.card.bank}")
