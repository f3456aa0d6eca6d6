"""Variables of the environment that other programs set, and that must not reach the page.

Gradio looks after itself over HTTP when it starts, and makes HTTP clients when it is imported: a
proxy, or a variable that httpx cannot use, would keep the page from opening though nothing leaves
this machine. Gradio's own variables would change what the page is; the command line says that.
"""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import httpx

from lmoe_studio.errors import ConfigError

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_FOR_HTTP = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"),
    *(name for low in _PROXIES for name in (low, low.upper())),
)
_OF_SERVERS = ("GRADIO_", "UVICORN_", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS")
_KEPT = "GRADIO_TEMP_DIR"
"""The one of Gradio's that is about this machine and not about the page."""


def settle_environment(host: str) -> None:
    """Let the page at `host` open whatever the environment says; asked before Gradio is imported.

    Raises:
        ConfigError: Gradio is told to keep uploaded files where it cannot.
    """
    for name in list(os.environ):
        if name.startswith(_OF_SERVERS) and name != _KEPT:
            del os.environ[name]
    _require_folder(os.environ.get(_KEPT))
    _leave_out_unusable()
    own = ("127.0.0.1", "localhost", "::1", host)
    for name in ("no_proxy", "NO_PROXY"):
        before = os.environ.get(name, "").split(",")
        os.environ[name] = ",".join(dict.fromkeys(filter(None, [*before, *own])))


def _require_folder(folder: str | None) -> None:
    if not folder:
        return
    with suppress(OSError):
        Path(folder).mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{_KEPT} names {folder}, where no file can be written; name another folder, or unset it."
        )


def _leave_out_unusable() -> None:
    """Without these no HTTP request works, the download of a model as little as the page."""
    present = {name: os.environ[name] for name in _FOR_HTTP if name in os.environ}
    if _is_usable():
        return
    for name in present:
        del os.environ[name]
    unusable = [name for name in present if not _is_usable_with(name, present[name])]
    sys.stderr.write(f"{_listed(unusable)} cannot be used for HTTP, and so is passed over.\n")


def _is_usable_with(name: str, value: str) -> bool:
    """Whether HTTP works with one more variable, which then stays."""
    os.environ[name] = value
    if _is_usable():
        return True
    del os.environ[name]
    return False


def _is_usable() -> bool:
    try:
        httpx.Client().close()
    except Exception:  # of httpx, ssl and the operating system, each with its own
        return False
    return True


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"${name}" for name in names) or "The environment"
