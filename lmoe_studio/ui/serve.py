"""serve: the page behind its guard, on an address, with nothing that leaves this machine."""

import socket
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection

from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.ui.asset_files import drawn_styles, page_script, read_asset
from lmoe_studio.ui.guard import LOOPBACK_HOSTS, Guard
from lmoe_studio.ui.layout import build_app
from lmoe_studio.ui.password import PasswordCheck
from lmoe_studio.ui.request_body import MOST_FILE_BYTES, refuse_half_character
from lmoe_studio.ui.script_file import ScriptFile
from lmoe_studio.ui.source import StudioSource
from lmoe_studio.ui.theme import build_theme

_WILDCARDS = frozenset({"0.0.0.0", "::", ""})
_MOST_WAITING = 32


def serve(
    source: StudioSource,
    host: str,
    port: int,
    *,
    jobs: Jobs | None = None,
    data_folder: Path | None = None,
    password: str | None = None,
    allowed_hosts: Sequence[str] = (),
) -> gr.Blocks:
    """Build the page and serve it in threads of its own; `close()` on the result ends it.

    Every option that an environment variable of Gradio's could switch is given explicitly.
    """
    app = build_app(source, jobs, data_folder=data_folder)
    app.queue(default_concurrency_limit=8, max_size=_MOST_WAITING)
    guard = Middleware(
        Guard,
        hosts=_hosts(host, allowed_hosts),
        any_address=host in _WILDCARDS,
        is_known=lambda request: not password or _has_session(app, request),
    )
    app.launch(
        server_name=host,
        server_port=port,
        auth=PasswordCheck(password) if password else None,
        auth_message="Any user name will do; it keeps your traces apart from those of others.",
        app_kwargs={
            "middleware": [guard, Middleware(ScriptFile, script=page_script())],
            "exception_handlers": {UnicodeEncodeError: refuse_half_character},
        },
        theme=build_theme(),
        css=read_asset("page.css", "analyse.css", "train.css"),
        head=f"<style>{read_asset('frame.css')}\n{drawn_styles()}</style>",
        footer_links=["settings"],
        prevent_thread_lock=True,
        quiet=True,
        inbrowser=False,
        share=False,
        show_error=False,
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        strict_cors=True,
        max_file_size=MOST_FILE_BYTES,
        allowed_paths=[],
    )
    return app


def _has_session(page: gr.Blocks, request: HTTPConnection) -> bool:
    """Whether Gradio knows the request's cookie, which a login gave."""
    names = (f"access-token-{page.app.cookie_id}", f"access-token-unsecure-{page.app.cookie_id}")
    return any(request.cookies.get(name) in page.app.tokens for name in names)


def _hosts(host: str, allowed_hosts: Sequence[str]) -> set[str]:
    """The names a browser may reach the page under."""
    own = {socket.gethostname(), socket.getfqdn()} if host in _WILDCARDS else {host}
    return {*LOOPBACK_HOSTS, *own, *allowed_hosts}
