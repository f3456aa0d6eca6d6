"""Guard: which requests the app answers, and what it tells the browser to allow.

Gradio checks no Host, so a web page elsewhere could reach a Studio on this machine by DNS
rebinding, and its CORS answers trust every port of localhost. The guard stands in front.
"""

from collections.abc import Callable, Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmoe_studio.ui.request_body import TOO_MUCH, announces_more, counted, most_bytes

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})

_CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; object-src 'none'"
)
_HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOGIN = frozenset({"/login", "/login/"})


class Guard:
    """ASGI middleware: refuses foreign hosts and origins, and sets the security headers.

    Args:
        app: what it guards.
        hosts: host names the app answers to.
        any_address: also answer to a bare IP address, which no DNS name can be rebound to.
        is_known: whether a request comes from someone who is logged in, or need not be; of the
            others' requests nothing is read but a login.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str],
        any_address: bool,
        is_known: Callable[[HTTPConnection], bool],
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._any_address = any_address
        self._is_known = is_known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        status, reason = self._verdict(scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if status == 200:
            await self._app(scope, counted(receive, most_bytes(scope)), send_guarded)
        elif scope["type"] == "http":
            await PlainTextResponse(reason, status)(scope, receive, send_guarded)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": reason})

    def _verdict(self, scope: Scope) -> tuple[int, str]:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._knows(hosts[0]):
            return 400, "This address is not one the Studio answers to."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != hosts[0].lower():
            return 403, "Requests from other sites are refused."
        unsafe = scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS
        if unsafe and headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
            return 403, "Requests from other sites are refused."
        if unsafe and scope["path"] not in _LOGIN and not self._is_known(HTTPConnection(scope)):
            return 401, "Log in first."
        if announces_more(headers, most_bytes(scope)):
            return 413, TOO_MUCH
        return 200, ""

    def _knows(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._hosts or (self._any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
