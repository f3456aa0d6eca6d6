"""How much a request may send: counted as it arrives, whatever its headers announce."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope

MOST_BODY_BYTES = 2 * 2**20
"""Of a request that is not an upload; a text that long reaches no model anyway."""
MOST_FILE_BYTES = 64 * 2**20
"""Of an uploaded file; the page sends one a request."""
TOO_MUCH = "That is more than the Studio takes in one request."

_UPLOAD = "/gradio_api/upload"
_ENVELOPE_BYTES = 64 * 2**10  # what a form puts around its file


def most_bytes(scope: Scope) -> int:
    """The limit of a request's body."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return MOST_FILE_BYTES + _ENVELOPE_BYTES if path == _UPLOAD else MOST_BODY_BYTES


def announces_more(headers: Headers, most: int) -> bool:
    """Whether the headers themselves say that a body is too long, or give a length that is none."""
    lengths = headers.getlist("content-length")
    return any(len(n) > 15 or not (n.isascii() and n.isdigit()) or int(n) > most for n in lengths)


def counted(receive: Receive, most: int) -> Receive:
    """`receive`, until more than `most` bytes have come; then it raises an HTTPException (413)."""
    num_bytes = 0

    async def receive_counted() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body") or message.get("bytes") or message.get("text") or b"")
        if num_bytes > most:
            raise HTTPException(413, TOO_MUCH)
        return message

    return receive_counted


async def refuse_half_character(_: Request, __: Exception) -> PlainTextResponse:
    """The answer where an answer would have quoted a lone surrogate, which UTF-8 cannot hold."""
    return PlainTextResponse("The request holds half a character.", 400)
