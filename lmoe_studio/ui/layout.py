"""build_app: the whole page over a source of studios. A new tab is one line in `TABS`."""

from typing import Any

import gradio as gr

from lmoe_studio.ui import panels
from lmoe_studio.ui.page import Follower, Page, kept
from lmoe_studio.ui.sidebar import Sidebar, build_sidebar
from lmoe_studio.ui.source import SourceState, StudioSource
from lmoe_studio.ui.tabs import analyse, compare, compose, explore
from lmoe_studio.ui.traces import TraceStore

TABS = (explore, compose, compare, analyse)
"""Modules with a `TITLE` and a `build(page) -> Follower`, from left to right; what a module lists
in `KEPT`, by name with its default, the browser keeps."""

_POLL_SECONDS = 0.4
_EXPORTS_CHECKED_EVERY, _EXPORTS_KEPT_FOR = 3600, 24 * 3600


def build_app(source: StudioSource) -> gr.Blocks:
    """The interface, ready to launch; it starts no loading by itself."""
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
        remembered = {
            name: kept(name, default)
            for tab in TABS
            for name, default in getattr(tab, "KEPT", {}).items()
        }
        page = Page(app, source, TraceStore(), status, remembered)
        sidebar = build_sidebar(source)
        followers = [sidebar.follower]
        with gr.Tabs(elem_id="tabs"):
            for tab in TABS:
                with gr.Tab(tab.TITLE):
                    followers.append(tab.build(page))
        _follow_source(page, sidebar, followers)
    return app


def _follow_source(page: Page, sidebar: Sidebar, followers: list[Follower]) -> None:
    """Poll while something loads; otherwise the page is quiet."""
    timer = gr.Timer(_POLL_SECONDS, active=False)
    seen = gr.State(-1)
    outputs = [seen, timer, page.status, *(part for each in followers for part in each.outputs)]

    def _on_look(version: int) -> Any:
        state = page.source.state
        if state.version == version:
            return [gr.skip()] * len(outputs)
        shown = [value for each in followers for value in each.show(state)]
        return [state.version, gr.update(active=state.is_loading), status_of(state), *shown]

    def _on_open() -> Any:
        return _on_look(-1)

    def _on_load(bank: str | None) -> Any:
        if bank and bank.strip():
            page.source.start(bank.strip())
        return _on_look(-1)

    quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    page.app.load(_on_open, None, outputs, **quiet)
    timer.tick(_on_look, seen, outputs, **quiet)
    sidebar.load.click(_on_load, sidebar.bank, outputs, **quiet)


def status_of(state: SourceState) -> str:
    """The status line for what the source is doing."""
    if state.progress is not None:
        return panels.status_line(f"Loading {state.bank}: {state.progress}", tone="loading")
    if state.studio is None or state.problem is not None:
        return panels.status_line(f"Could not load {state.bank}", tone="problem")
    return panels.status_line(f"Ready · {state.studio.card.bank}")
