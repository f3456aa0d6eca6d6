"""The address, the guard in front of the page, and what it answers to whom."""

import http.client
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fake_studio import FakeStudio
from page_server import served, source_of
from patience import PATIENCE

from lmoe_studio.errors import ConfigError
from lmoe_studio.ui.app import check_address

ROUTES = ("/", "/config", "/theme.css", "/gradio_api/info", "/gradio_api/heartbeat/x", "/nothing")


def ask(url, path="/", *, method="GET", body=None, **headers):
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=PATIENCE)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=body, headers={"Host": address.netloc} | sent)
    response = connection.getresponse()
    # A heartbeat never ends, so no body is waited for.
    text = "" if "heartbeat" in path else response.read().decode(errors="replace")
    connection.close()
    return response, text


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "10.0.0.7",
        "localhost.",
        "[::2]",
        "",
        "@",
        "[",
        "127.0.0.1@evil.example",
    ],
)
def test_a_foreign_host_is_refused(url, host):
    for path in ROUTES:
        assert ask(url, path, Host=host)[0].status == 400, (host, path)


def test_own_hosts_are_answered(url):
    port = urlsplit(url).port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", "[::1]"):
        assert ask(url, Host=host)[0].status == 200, host


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/queue/join",
        "/gradio_api/run/predict",
        "/gradio_api/upload",
        "/gradio_api/cancel",
    ],
)
def test_an_unsafe_request_from_elsewhere_is_refused(url, path):
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        assert ask(url, path, method="POST", body="{}", **headers)[0].status == 403, headers


def test_reading_from_another_origin_is_refused_too(url):
    response, text = ask(url, "/config", Origin="http://localhost:1234")
    assert response.status == 403
    assert "components" not in text


def test_the_own_origin_may_call(url):
    response, _ = ask(url, "/gradio_api/queue/join", method="POST", body="{}", Origin=url)
    assert response.status not in {400, 403}


def test_a_request_with_too_much_text_is_refused(url):
    body = json.dumps({"data": ["x" * 3_000_000]})
    assert ask(url, "/gradio_api/run/predict", method="POST", body=body)[0].status == 413


@pytest.mark.parametrize("path", ROUTES)
def test_every_answer_carries_the_security_headers(url, path):
    response, _ = ask(url, path)
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert response.getheader("x-content-type-options") == "nosniff"
    assert response.getheader("referrer-policy") == "no-referrer"


def test_nothing_private_is_served(url):
    assert ask(url, "/monitoring")[0].status in {403, 404}
    assert ask(url, "/gradio_api/runs")[0].status == 404
    assert ask(url, "/gradio_api/file=/etc/passwd")[0].status == 403
    assert json.loads(ask(url, "/gradio_api/info")[1])["named_endpoints"] == {}


def test_the_first_page_is_small_and_its_script_is_fetched_once(url):
    _, page = ask(url)
    name = re.search(r'<head><script src="\./(studio-\w+\.js)"></script>', page)
    assert name is not None
    response, script = ask(url, f"/{name[1]}")
    assert "function draw_workbench" in script
    assert response.getheader("content-type").startswith("text/javascript")
    assert "immutable" in response.getheader("cache-control")
    packed, _ = ask(url, f"/{name[1]}", Accept_Encoding="gzip")
    assert packed.getheader("content-encoding") == "gzip"
    assert len(page) + int(packed.getheader("content-length")) <= 400_000


def test_a_password_closes_the_page():
    with served(source_of(FakeStudio()), password="secret") as address:
        assert ask(address, "/config")[0].status == 401
        right = "username=ann&password=secret"
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        assert ask(address, "/login", method="POST", body=right, **form)[0].status == 200
        wrong = "username=ann&password=guess"
        assert ask(address, "/login", method="POST", body=wrong, **form)[0].status == 400


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "example.com"])
def test_listening_beyond_this_machine_needs_a_password(host):
    for password in (None, ""):
        with pytest.raises(ConfigError, match="without a password"):
            check_address(host, 7860, password=password)


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}.*--port {port + 1}"):
            check_address("127.0.0.1", port, password=None)
    with pytest.raises(ConfigError, match="out of range"):
        check_address("127.0.0.1", 70_000, password=None)


def test_the_start_script_takes_options_and_ends_with_one_sentence_when_the_port_is_taken():
    script = Path(__file__).parents[2] / "app.py"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, str(script), "--port", port, "--no-browser"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 1
    assert port in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_importing_the_package_and_the_launcher_brings_neither_gradio_nor_torch():
    code = (
        "import sys, lmoe_studio, lmoe_studio.ui.app; "
        "sys.exit(bool({'gradio', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE).returncode == 0
