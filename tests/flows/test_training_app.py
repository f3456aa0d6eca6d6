"""From an empty folder: two pasted datasets become a bank in the app, through kills of app and job."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from job_processes import kill, until
from ports import free_port

from lmoe_studio.jobs.job import JobState
from lmoe_studio.jobs.jobs import Jobs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real,
]
SQL = "\n".join(
    f"SELECT {what} FROM {table} WHERE id = {number};"
    for number, (what, table) in enumerate(
        (what, table)
        for what in ("name", "city", "total", "COUNT(*)")
        for table in ("customers", "orders", "invoices", "products")
    )
)
VERSE = "\n\n".join(
    f"{who}. {what}\nAnd so the {thing} goes by."
    for who in ("KING", "QUEEN", "FOOL", "CAPTAIN")
    for what, thing in (("What hour is it?", "night"), ("Speak low, they come.", "watch"))
)
SMALLEST = {
    "steps": 24, "sequence_length": 32, "rank": 2, "batch_size": 2, "held_out_sequences": 1,
    "eval_sequences": 1, "eval_every": 12, "checkpoint_every": 2,
}  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LMOE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests have the other cores
    yield tmp_path / "home"
    for job in Jobs(tmp_path / "home").list():
        if job.is_live and job.pid:
            kill(job.pid)


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def apps():
    """Starts apps; what still runs at the end is killed."""
    started = []

    def start(port):
        command = [sys.executable, "-m", "lmoe_studio", "app", "--no-browser", "--port", str(port)]
        app = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
        started.append(app)
        assert app.stderr is not None
        assert f"http://127.0.0.1:{port}" in app.stderr.readline()
        return app

    yield start
    for app in started:
        app.kill()
        app.communicate()


@contextmanager
def a_page(browser, address):
    """A visitor's first page: it is closed with everything that it kept."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(300_000)
    page.goto(address)
    yield page
    page.close()


def fill_in(page):
    page.wait_for_selector("#run:not([disabled])")
    page.get_by_role("tab", name="Train").click()
    for letter, name, text in (("A", "sql", SQL), ("B", "verse", VERSE)):
        page.get_by_label(f"Name of expert {letter}").fill(name)
        page.get_by_role("textbox", name=f"Texts of expert {letter}").fill(text)
    page.fill("#bank-to-be", "my-first")
    page.evaluate(
        "document.querySelectorAll('#options details').forEach((one) => (one.open = true))"
    )
    for name, value in SMALLEST.items():
        page.fill(f"#option-{name}", str(value))


def test_a_bank_is_trained_through_kills_and_loaded_into_explore(home, port, apps, browser):
    address, jobs = f"http://127.0.0.1:{port}", Jobs(home)
    app = apps(port)
    with a_page(browser, address) as page:
        fill_in(page)
        page.click("#start")
        page.wait_for_selector("#job-head .job.running")
        [job] = jobs.list()
        until(lambda: jobs.get(job.id).step >= 2)
        page.locator("#training-status").get_by_text("my-first: training step").wait_for()
        app.send_signal(signal.SIGKILL)
        app.wait()
        page.locator(".lost").get_by_text("Training goes on without it").wait_for()
    assert jobs.get(job.id).is_live, "the app's end is not the job's"
    until(lambda: jobs.get(job.id).step >= 4)
    kill(jobs.get(job.id).pid)  # as if the machine had been switched off
    apps(port)
    with a_page(browser, f"{address}/?job={job.id}") as page:
        page.wait_for_selector("#job-head .job.interrupted")
        page.click("[data-act=resume]")
        page.wait_for_selector("#job-head .job.running")
        page.wait_for_selector("#job-head .job.done", timeout=900_000)
        assert jobs.get(job.id).state is JobState.DONE
        assert "going on after step" in page.inner_text("#job-details pre")
        page.wait_for_selector("#job-loss svg path")
        page.click("[data-act=open]")
        page.locator("#bank h2").get_by_text("my-first").wait_for()
        page.wait_for_selector("#run:not([disabled]) >> visible=true")
        page.fill("#prompt textarea", "SELECT name FROM users WHERE id = 3;")
        page.click("#run")
        page.wait_for_selector("#workbench [role=option]")
        assert "verse" in page.inner_text("#workbench")
