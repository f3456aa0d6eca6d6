"""The page's own script as a file: the browser keeps it, and it runs before the page is built.

Gradio puts what it is given for the head into the page again and again, and runs a script file of
that only some time later. So the tag for it is put into the page as it goes out.
"""

import gzip
from hashlib import sha256

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEAD = b"<head>"


class ScriptFile:
    """ASGI middleware: serves one script, and names it at the top of the page.

    Args:
        app: what builds the page.
        script: the script; its file is named by its digest, so that a new one is fetched anew.
    """

    def __init__(self, app: ASGIApp, *, script: str) -> None:
        self._app = app
        self._plain = script.encode()
        self._packed = gzip.compress(self._plain)
        self._name = f"studio-{sha256(self._plain).hexdigest()[:12]}.js"
        self._tag = f'<script src="./{self._name}"></script>'.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] == "http" and path == f"/{self._name}":
            await self._file(Headers(scope=scope))(scope, receive, send)
        elif scope["type"] == "http" and path == "/":
            await self._app(scope, receive, self._tagged(send))
        else:
            await self._app(scope, receive, send)

    def _file(self, asked: Headers) -> Response:
        headers = {
            "cache-control": "public, max-age=31536000, immutable",
            "vary": "accept-encoding",
        }
        packs = "gzip" in asked.get("accept-encoding", "")
        if packs:
            headers["content-encoding"] = "gzip"
        content = self._packed if packs else self._plain
        return Response(content, headers=headers, media_type="text/javascript")

    def _tagged(self, send: Send) -> Send:
        """`send`, with the tag put after the first <head> of an answer."""
        is_done = False
        start: Message | None = None

        async def send_tagged(message: Message) -> None:
            nonlocal is_done, start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                body = message.get("body", b"")
                if not is_done and _HEAD in body:
                    message = {**message, "body": body.replace(_HEAD, _HEAD + self._tag, 1)}
                    headers = MutableHeaders(scope=start)
                    if "content-length" in headers:
                        length = int(headers["content-length"]) + len(self._tag)
                        headers["content-length"] = str(length)
                    is_done = True
                await send(start)
                start = None
            await send(message)

        return send_tagged
