"""The page opens whatever the environment says, or one sentence says why not."""

import http.client
import os
import socket
import subprocess
import sys
import time
from unittest.mock import patch

import httpx
import pytest
from patience import PATIENCE
from ports import free_port

from lmoe_studio.errors import ConfigError
from lmoe_studio.ui.environment import settle_environment


@pytest.fixture(autouse=True)
def _restored():
    with patch.dict(os.environ):
        for name in list(os.environ):
            if name.lower().endswith("_proxy"):
                del os.environ[name]
        yield


@pytest.mark.parametrize(
    ("variables", "passed_over"),
    [
        ({"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}, []),
        ({"http_proxy": "nonsense://x:y:z", "https_proxy": "http://127.0.0.1:9"}, ["http_proxy"]),
        ({"all_proxy": "socks5://127.0.0.1:9", "NO_PROXY": "[::1]:x"}, ["all_proxy", "NO_PROXY"]),
        ({"SSL_CERT_FILE": "/no/such/file"}, ["SSL_CERT_FILE"]),
        ({"SSL_CERT_FILE": __file__}, ["SSL_CERT_FILE"]),
        ({"no_proxy": "*", "http_proxy": "http://127.0.0.1:9"}, []),
    ],
    ids=lambda value: " ".join(value),
)
def test_http_works_and_goes_to_the_page_itself(variables, passed_over, capsys):
    os.environ.update(variables)
    settle_environment("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        with httpx.Client(timeout=0.2) as client, pytest.raises(httpx.ReadTimeout):
            client.get(f"http://127.0.0.1:{server.getsockname()[1]}/")
        server.accept()[0].close()  # it was asked, and not a proxy
    said = capsys.readouterr().err
    for name, value in variables.items():
        assert (f"${name}" in said) == (name in passed_over)
        assert os.environ.get(name, "").startswith(value) == (name not in passed_over)


def test_variables_of_gradio_do_not_change_the_page(tmp_path):
    os.environ.update(
        GRADIO_SHARE="true", GRADIO_SERVER_PORT="x", GRADIO_TEMP_DIR=str(tmp_path / "a")
    )
    settle_environment("localhost")
    assert [name for name in os.environ if name.startswith("GRADIO_")] == ["GRADIO_TEMP_DIR"]
    (tmp_path / "file").touch()
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"GRADIO_TEMP_DIR names .*file, where no file"):
        settle_environment("localhost")


@pytest.mark.slow
def test_the_page_answers_under_a_hostile_environment(tmp_path):
    port = free_port()
    hostile = {
        "http_proxy": "http://127.0.0.1:9", "SSL_CERT_FILE": "/no/such/file", "LC_ALL": "C",
        "GRADIO_SERVER_PORT": "x", "GRADIO_ROOT_PATH": "/x", "WEB_CONCURRENCY": "z",
        "LMOE_HOME": str(tmp_path),
    }  # fmt: skip
    command = [sys.executable, "-m", "lmoe_studio", "app", "--no-browser", "--port", str(port)]
    app = subprocess.Popen(
        [*command, "--bank", "nowhere"], env={**os.environ, **hostile}, stderr=subprocess.PIPE
    )
    try:
        while app.poll() is None:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
                connection.request("GET", "/")
                break
            except OSError:
                time.sleep(0.2)
        assert app.poll() is None
        with connection.getresponse() as response:
            assert response.status == 200
        connection.close()
    finally:
        app.terminate()
        said = app.communicate()[1]
    assert b"Traceback" not in said
