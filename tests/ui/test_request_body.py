"""What a request may send: counted as it comes, on every route, and nothing of a stranger's."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from fake_studio import FakeStudio
from page_server import served, source_of
from patience import PATIENCE
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from test_serving import ask

from lmoe_studio.ui.request_body import (
    MOST_BODY_BYTES,
    MOST_FILE_BYTES,
    announces_more,
    counted,
    most_bytes,
)

READING = ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/run/x/upload",
           "/gradio_api/call/upload", "/gradio_api/component_server", "/login")  # fmt: skip
FORM = "Content-Type: multipart/form-data; boundary=b"
JSON = "Content-Type: application/json"


def status_of(url, path, *head, pieces=()):
    """Sends headers, then pieces of a body that never ends; gives the status that comes back."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE) as connection:
        lines = [f"POST {path} HTTP/1.1", f"Host: {address.netloc}", *head, "", ""]
        connection.sendall("\r\n".join(lines).encode())
        for piece in pieces:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        return int(connection.recv(65_536).split()[1])


def chunks(num_bytes, start=b""):
    """Pieces of 64 KB that end with the byte that is one too many."""
    yield start
    left = num_bytes + 1 - len(start)
    while left > 0:
        yield b"x" * min(left, 65_536)
        left -= 65_536


@pytest.mark.parametrize("path", READING)
def test_a_body_of_no_given_length_is_counted_as_it_comes(url, path):
    body = chunks(MOST_BODY_BYTES, b'{"data": ["')
    status = status_of(url, path, "Transfer-Encoding: chunked", JSON, pieces=body)
    # Two of them have a word of their own for what cannot be read, and one is no route.
    own = {"/gradio_api/component_server": 400, "/login": 422, "/gradio_api/run/x/upload": 404}
    assert status == own.get(path, 413)


@pytest.mark.parametrize("path", [*READING, "/gradio_api/upload/", "/nothing/upload"])
def test_a_body_that_is_said_to_be_too_long_is_not_waited_for(url, path):
    for length in (MOST_BODY_BYTES + 1, 10**12, 10**18):
        assert status_of(url, path, f"Content-Length: {length}", JSON) == 413


@pytest.mark.parametrize("part", [b'name="files"; filename="x"', b'name="field"'])
def test_an_upload_may_be_large_but_not_endless(url, part):
    start = b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n\r\n"
    whole = (start + b"x" * (MOST_BODY_BYTES * 2) + b"\r\n--b--\r\n").decode()
    headers = {"Content_Type": "multipart/form-data; boundary=b"}
    upload = "/gradio_api/upload"
    assert ask(url, upload, method="POST", body=whole, **headers)[0].status == 200
    endless = chunks(MOST_FILE_BYTES + 65_536, start)
    assert status_of(url, upload, "Transfer-Encoding: chunked", FORM, pieces=endless) == 413


def test_nothing_is_read_of_a_request_without_a_session():
    with served(source_of(FakeStudio()), password="secret") as address:
        for path in (
            *READING[:-1],
            "/gradio_api/upload",
            "/gradio_api/cancel",
            "/gradio_api/reset",
        ):
            assert status_of(address, path, "Content-Length: 1000", JSON) == 401, path
            assert status_of(address, path, "Transfer-Encoding: chunked", FORM) == 401, path
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        right = "username=ann&password=secret"
        response, _ = ask(address, "/login", method="POST", body=right, **form)
        cookie = next(
            value.split(";")[0]
            for value in response.headers.get_all("set-cookie")
            if "unsecure" in value
        )
        joined, _ = ask(address, READING[0], method="POST", body="{}", Cookie=cookie)
        assert joined.status == 422  # it is read, and holds nothing
        guessed, _ = ask(address, READING[0], method="POST", body="{}", Cookie=cookie + "x")
        assert guessed.status == 401


@pytest.mark.parametrize(
    ("lengths", "is_more"),
    [
        ([], False),
        (["10"], False),
        (["11"], True),
        (["1", "11"], True),
        (["9" * 5000], True),
        (["-1"], True),
        (["1e3"], True),
        (["١"], True),
        ([""], True),
    ],
)
def test_what_the_headers_announce(lengths, is_more):
    raw = [(b"content-length", length.encode()) for length in lengths]
    assert announces_more(Headers(raw=raw), 10) == is_more


@pytest.mark.parametrize(
    ("kind", "name", "piece"),
    [("http.request", "body", b"xxxx"), ("websocket.receive", "bytes", b"xxxx"),
     ("websocket.receive", "text", "xxxx")],
)  # fmt: skip
def test_the_byte_that_is_one_too_many_is_not_handed_on(kind, name, piece):
    async def receive():
        return {"type": kind, name: piece}

    async def read():
        receive_counted = counted(receive, 11)
        messages = [await receive_counted() for _ in range(2)]
        assert [message[name] for message in messages] == [piece, piece]
        with pytest.raises(HTTPException, match="more than the Studio takes"):
            await receive_counted()

    # In a thread of its own: the browser's driver keeps an event loop running in this one.
    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, read()).result()


def test_only_the_upload_route_itself_takes_more():
    limits = {
        path: most_bytes({"path": path, "root_path": root})
        for path, root in [
            ("/gradio_api/upload", ""),
            ("/studio/gradio_api/upload", "/studio"),
            ("/x/gradio_api/upload", ""),
            ("/gradio_api/run/upload", ""),
        ]
    }
    assert [limit > MOST_BODY_BYTES for limit in limits.values()] == [True, True, False, False]


@pytest.mark.parametrize("path", READING)
def test_half_a_character_is_no_fault_of_the_servers(url, path):
    headers = {"Content_Type": "application/json"}
    for body in ('{"data": "\\ud800"}', '{"\\ud800": 1}', '"\\ud800"'):
        assert 400 <= ask(url, path, method="POST", body=body, **headers)[0].status < 500, body
