"""build_app: the whole page over a source of studios. A new tab is one line in `TABS`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.ui import panels
from lmoe_studio.ui.components.facts import build_facts, facts_of
from lmoe_studio.ui.page import Follower, Page, kept
from lmoe_studio.ui.sidebar import OPEN_IF_WIDE, Sidebar, build_sidebar
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
        facts = build_facts(elem_id="facts")
        page = Page(
            app, source, TraceStore(), status, remembered, JobWatch(jobs or Jobs()), training,
            beat=gr.Timer(_BEAT_SECONDS), bell=gr.Textbox("", visible=False),
            download=gr.DownloadButton(visible="hidden", elem_id="download"), data_folder=data_folder,
        )  # fmt: skip
        sidebar = build_sidebar(source)
        app.load(None, None, sidebar.box, js=OPEN_IF_WIDE, queue=False, show_progress="hidden")
        followers = [sidebar.follower]
        with gr.Tabs(elem_id="tabs"):
            for tab in TABS:
                with gr.Tab(tab.TITLE) as place:
                    followers.append(tab.build(replace(page, place=place)))
        _follow_source(page, sidebar, facts, followers)
    return app


def _follow_source(page: Page, sidebar: Sidebar, facts: gr.HTML, followers: list[Follower]) -> None:
    """Look again and again what there is, and tell the page when it is something else.

    What looks writes to nothing but the facts and the version, which are always there. A new
    version is what changes the rest.
    """
    timer = gr.Timer(_POLL_SECONDS, active=False)
    version = gr.Textbox("", visible=False)
    seen = [facts, version]

    def _on_look(known: object, request: gr.Request) -> list[Any]:
        source = page.source
        places = page.places()
        now = facts_of(
            source.state, asker=request.session_hash or "", bases=source.bases(),
            banks=source.banks(), files=places.files(), adapters=places.adapters(),
        )  # fmt: skip
        return [gr.skip() if known == now else now, str(source.state.version)]

    def _on_load(bank: object, known: object, request: gr.Request) -> list[Any]:
        if isinstance(bank, str) and bank.strip():
            page.source.start(bank.strip(), request.session_hash or "")
        return _on_look(known, request)

    def _on_version() -> list[Any]:
        state = page.source.state
        values = [value for each in followers for value in each.show(state)]
        return [gr.update(active=state.is_loading), status_of(state), *values]

    def _on_facts() -> Any:
        return gr.update(choices=page.source.banks())

    quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    page.app.load(_on_look, facts, seen, **quiet)
    for clock in (timer, page.beat):
        clock.tick(_on_look, facts, seen, **quiet)
    page.bell.change(_on_look, facts, seen, **quiet)
    sidebar.load.click(_on_load, [sidebar.bank, facts], seen, **quiet)
    outputs = [timer, page.status, *(part for each in followers for part in each.outputs)]
    version.change(_on_version, None, outputs, **quiet)
    facts.change(_on_facts, None, sidebar.bank, **quiet)


def status_of(state: SourceState) -> str:
    """The status line for what the source is doing."""
    if state.progress is not None:
        return panels.status_line(f"Loading {state.bank}: {state.progress}", tone="loading")
    if state.studio is None or state.problem is not None:
        return panels.status_line(f"Could not load {state.bank}", tone="problem")
    return panels.status_line(f"Ready · {state.studio.card.bank}")
