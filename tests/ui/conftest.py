"""A served page over a fake studio, and pages that fail a test on any error or leak."""

import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urljoin

import pytest

sys.path.append(str(Path(__file__).parent))  # the fake studio is a module beside the tests

from fake_studio import FakeStudio
from job_processes import until
from made_jobs import made_jobs
from page_server import served, source_of
from patience import PATIENCE


@pytest.fixture
def figures(record_property):
    """Notes a measured figure, to be read at the end of the run."""
    return record_property


def pytest_terminal_summary(terminalreporter):
    passed = terminalreporter.stats.get("passed", [])
    lines = [f"{name}: {value}" for report in passed for name, value in report.user_properties]
    if lines:
        terminalreporter.section("measured in the interface")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def shared_studio():
    return FakeStudio()


@pytest.fixture
def studio(shared_studio):
    """The studio of `url`, quick and with answers of its own; no run of another test goes on."""
    yield shared_studio
    shared_studio.answer, shared_studio.pause = None, 0.0
    until(lambda: not shared_studio.going)


@pytest.fixture(scope="session")
def url(shared_studio):
    """One server for every test that needs only a loaded studio."""
    with served(source_of(shared_studio)) as address:
        yield address


@pytest.fixture(scope="session")
def visitor(browser):
    """One visitor for all tests: scripts stay in its cache, which halves the time they take."""
    return browser.new_context(accept_downloads=True)


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory):
    """A cache folder in which a tiny model takes the place of the embedded base model."""
    from tiny_models import make_tiny_base, make_tiny_tokenizer

    from lmoe_studio.base_models import embedded_folder

    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMOE_CACHE", str(cache))
        patch.setattr("lmoe_studio.base_models._find_gguf", lambda *_: cache)

        def convert(_, folder):
            make_tiny_base().save_pretrained(folder)
            make_tiny_tokenizer().save_pretrained(folder)

        patch.setattr("lmoe_studio.base_models._convert", convert)
        embedded_folder()
    return cache


@pytest.fixture
def tiny_home(tiny_cache, tmp_path, monkeypatch):
    """A home folder whose jobs train over the tiny base, with one bank; what still runs is killed."""
    from job_processes import kill
    from tiny_models import make_bank, make_tiny_base

    from lmoe_studio.config import EMBEDDED_BASE
    from lmoe_studio.experts.files import save_bank
    from lmoe_studio.jobs.jobs import Jobs

    home = tmp_path / "home"
    for name, value in (("HOME", home), ("CACHE", tiny_cache)):
        monkeypatch.setenv(f"LMOE_{name}", str(value))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # with more, small models are slower side by side
    save_bank(make_bank(make_tiny_base(), base_id=EMBEDDED_BASE), home / "banks" / "first")
    yield home
    for job in Jobs(home).list():
        if job.is_live and job.pid:
            kill(job.pid)


@pytest.fixture
def serving():
    """Serves sources of their own, until after the pages that look at them are closed."""
    with ExitStack() as servers:
        yield lambda source, **options: servers.enter_context(served(source, **options))


@pytest.fixture
def real(serving, tiny_home):
    """A page that trains and loads for real, over tiny models."""
    from lmoe_studio.jobs.jobs import Jobs
    from lmoe_studio.ui.source import model_source

    source = model_source("cpu")
    source.start("first")
    return serving(source, jobs=Jobs(tiny_home))


@pytest.fixture
def made(tmp_path):
    """A home folder for jobs that are written down by hand."""
    with made_jobs(tmp_path / "home") as made:
        yield made


@pytest.fixture
def visit_jobs(open_page, serving, made):
    """Opens the Train tab over the jobs of `made`."""
    address = serving(source_of(FakeStudio()), jobs=made.jobs)

    def visit(query="", *, after=500, **options):
        page = open_page(address + query, ready=False, **options)
        page.wait_for_selector("#run", state="attached")
        if "job=" not in query:
            page.wait_for_timeout(after)
            page.locator("#tabs button", has_text="Train").first.wait_for(state="attached")
            page.evaluate("openTab('Train')")
        page.wait_for_selector("#jobs [aria-current=true]")
        page.wait_for_selector("#job-head .says")
        page.wait_for_selector("#job-details .measured", state="attached")
        return page

    return visit


def watched(page):
    """The page, and a list that grows with every error and every request to somewhere else."""
    problems = []

    def note_request(request):
        if not request.url.startswith(("http://127.0.0.1", "data:", "blob:")):
            problems.append(f"asked for {request.url}")

    page.set_default_timeout(1000 * PATIENCE)
    page.on("request", note_request)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: line.type == "error" and problems.append(line.text))
    page.on("dialog", lambda dialog: problems.append("a dialog opened") or dialog.dismiss())
    return page, problems


def forget(visitor, address):
    """What pages of this address kept is gone; none may be open, for its scripts would keep on."""
    page = visitor.new_page()
    page.goto(urljoin(address, "/theme.css"))  # of the same origin, and without scripts
    page.evaluate("localStorage.clear()")
    page.close()


def visit(page, address, *, ready=True):
    page.goto(address)
    if ready:
        page.wait_for_selector("#run:not([disabled])")
        page.wait_for_selector("#workbench .empty, #workbench .tok")
    return page


@pytest.fixture
def open_page(visitor, serving):
    """Opens pages of its own: another server, another window, another visitor."""
    opened = []

    def open_at(address, *, ready=True, width=1400, height=900, context=visitor):
        opened.append(watched(context.new_page()))
        page, _ = opened[-1]
        page.set_viewport_size({"width": width, "height": height})
        return visit(page, address, ready=ready)

    yield open_at
    addresses = {page.url for page, _ in opened}
    for page, _ in opened:
        page.close()
    for address in addresses:
        forget(visitor, address)
    assert not [problem for _, problems in opened for problem in problems]


@pytest.fixture(scope="session")
def shared_page(visitor):
    page, problems = watched(visitor.new_page())
    page.set_viewport_size({"width": 1400, "height": 900})
    return page, problems


@pytest.fixture
def page(shared_page, url, studio):  # left before the studio is looked after
    """The page as someone finds it who comes for the first time."""
    page, problems = shared_page
    visit(page, url)
    yield page
    page.evaluate("0")  # what it has said until now is heard
    seen = problems[:]
    page.goto("about:blank")  # requests that this cuts are complained about
    forget(page.context, url)
    problems.clear()
    assert not seen


@pytest.fixture
def show(page, studio):
    """Shows a trace made by hand on the page."""

    def show_trace(trace):
        studio.answer = trace
        page.fill("#prompt textarea", "a text")
        page.click("#run")
        page.wait_for_selector(".tok")
        page.wait_for_selector(".bar .value:not(.rough)")
        return page

    return show_trace
