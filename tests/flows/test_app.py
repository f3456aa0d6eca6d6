"""The app as a person starts it: the demo bank, a typed text, its weights in the browser."""

import os
import socket
import subprocess
import sys
import time

import pytest
from patience import PATIENCE
from ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.real]


def start(*arguments):
    command = [sys.executable, "-m", "lmoe_studio", "app", "--no-browser", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)


def test_a_typed_text_shows_the_demo_banks_weights(browser):
    port = free_port()
    began = time.monotonic()
    app = start("--port", port)
    try:
        assert app.stderr is not None
        assert f"http://127.0.0.1:{port}" in app.stderr.readline()
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        errors, outside = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: m.type == "error" and errors.append(m.text))
        page.on(
            "request",
            lambda r: (
                r.url.startswith(("http://127.0.0.1", "data:", "blob:")) or outside.append(r.url)
            ),
        )
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(f"http://127.0.0.1:{port}")
        page.wait_for_selector("#run:not([disabled])")
        print(f"ready after {time.monotonic() - began:.1f} s")
        page.fill("#prompt textarea", "SELECT name FROM users WHERE id = 3;")
        page.click("#run")
        page.wait_for_selector("#workbench [role=option]")
        shown = page.inner_text("#workbench")
        assert "SELECT" in shown
        for expert in ("python", "sql", "french", "recipes"):
            assert expert in shown
        page.close()
        assert not errors
        assert not outside
    finally:
        app.terminate()
        app.communicate(timeout=PATIENCE)


def test_a_port_in_use_ends_in_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        app = start("--port", port)
        _, err = app.communicate(timeout=PATIENCE)
    assert app.returncode == 1
    assert f"port {port}" in err
    assert "Traceback" not in err


def test_listening_beyond_this_machine_needs_a_password():
    app = start("--host", "0.0.0.0")
    _, err = app.communicate(timeout=PATIENCE)
    assert app.returncode == 1
    assert "password" in err
    assert "Traceback" not in err
