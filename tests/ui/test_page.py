"""The page in a browser: every state it can be in, what it keeps, and what can be taken away."""

import sys
from threading import Event

import pandas as pd
import pytest
from fake_studio import FakeCard, FakeExpert, FakeStudio, make_trace
from page_server import source_of
from patience import PATIENCE
from waits import keeping

from lmoe_studio.errors import BankError, PlanError
from lmoe_studio.tracing.files import load_trace
from lmoe_studio.ui.source import StudioSource

_LOOKED_UP = []
sys.addaudithook(lambda name, args: name == "socket.getaddrinfo" and _LOOKED_UP.append(args[0]))


def notice(page):
    return page.locator("#notice .panel")


def test_the_page_is_there_while_the_model_loads_and_then_follows(open_page, serving):
    go_on = Event()

    def load(bank, on_progress):
        on_progress("Fetching the base model: 12 of 93 MB")
        assert go_on.wait(PATIENCE)
        return FakeStudio()

    source = StudioSource(load, lambda: ["demo"])
    source.start("demo")
    address = serving(source)
    page = open_page(address, ready=False)
    notice(page).get_by_text("12 of 93 MB").wait_for()
    assert page.locator("#run").is_disabled()
    assert "Loading demo" in page.inner_text("#status")
    page.fill("#prompt textarea", "typed early")
    go_on.set()
    page.wait_for_selector("#run:not([disabled])")
    page.wait_for_selector("#workbench .empty")
    assert page.input_value("#prompt textarea") == "typed early"
    assert "SmolLM2" in page.inner_text("#bank")
    assert notice(page).count() == 0


def test_a_bank_that_cannot_be_loaded_says_why_and_another_can_be_tried(open_page, serving):
    def load(bank, on_progress):
        if bank == "demo":
            raise BankError("Bank 'demo' is damaged: <b>router.safetensors</b> is missing.")
        return FakeStudio(FakeCard(bank="mine"))

    source = StudioSource(load, lambda: ["demo"])
    source.start("demo")
    address = serving(source)
    page = open_page(address, ready=False)
    notice(page).get_by_text("<b>router.safetensors</b> is missing").wait_for()
    assert "Could not load demo" in page.inner_text("#status")
    page.fill("#bank-name input", "/banks/mine")
    page.keyboard.press("Enter")
    page.click("#bank-load")
    page.locator("#bank h2").get_by_text("mine").wait_for()
    assert page.locator("#run").is_enabled()
    # The loaded bank stays in use when the next one fails.
    page.fill("#bank-name input", "demo")
    page.keyboard.press("Enter")
    page.click("#bank-load")
    page.locator("#bank .panel").get_by_text("is missing").wait_for()
    assert "mine" in page.inner_text("#bank h2")
    assert page.locator("#run").is_enabled()


def test_a_blank_text_is_answered_with_a_sentence(page):
    page.fill("#prompt textarea", "  \n ")
    page.click("#run")
    notice(page).get_by_text("Nothing to trace").wait_for()
    assert page.input_value("#prompt textarea") == "  \n "


def test_a_text_that_is_too_long_can_be_cut(page):
    text = "word " * 700
    page.fill("#prompt textarea", text)
    page.click("#run")
    notice(page).get_by_text("at most 600").wait_for()
    assert page.input_value("#prompt textarea") == text
    page.get_by_role("button", name="Trace the first 600 tokens").click()
    page.wait_for_selector(".tok")
    assert page.locator(".tok").count() == 600
    assert notice(page).count() == 0
    assert page.locator("#cut").count() == 0 or page.locator("#cut").is_hidden()
    assert page.input_value("#prompt textarea") == text


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PlanError("No expert named 'sqll'."), "No expert named 'sqll'."),
        (ZeroDivisionError("/secret"), "incident"),
    ],
)
def test_an_error_is_a_sentence_and_the_next_trace_works(page, studio, error, sentence):
    studio.answer = error
    page.fill("#prompt textarea", "keep me")
    page.click("#run")
    notice(page).get_by_text(sentence).wait_for()
    assert "/secret" not in page.content()
    assert page.input_value("#prompt textarea") == "keep me"
    studio.answer = None
    page.click("#run")
    page.wait_for_selector(".tok")
    assert notice(page).count() == 0


def test_one_click_on_an_example_traces_it(page):
    page.get_by_role("button", name="Mixed").click()
    page.wait_for_selector(".tok")
    assert "SELECT title" in page.input_value("#prompt textarea")


def test_ctrl_enter_traces_what_was_typed(page):
    page.locator("#prompt textarea").press_sequentially("one two three")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".tok")
    assert page.locator(".tok").count() == 4


def test_a_reload_keeps_the_text_and_the_trace(page):
    with keeping(page, "trace"):
        page.fill("#prompt textarea", "first text")
        page.click("#run")
        page.wait_for_selector(".tok")
    with keeping(page, "text"):
        page.fill("#prompt textarea", "typed after the trace")
    page.reload()
    page.wait_for_selector(".tok")
    page.wait_for_function(
        "document.querySelector('#prompt textarea').value === 'typed after the trace'"
    )
    assert page.locator(".tok").all_inner_texts()[1:] == ["first", "text"]


def test_exports_are_downloaded_on_the_first_click(page, studio, tmp_path):
    studio.answer = make_trace(["=cmd", " b"], layers=3)
    page.fill("#prompt textarea", "x")
    page.click("#run")
    page.wait_for_selector(".tok")
    for kind in ("csv", "parquet"):
        with page.expect_download() as download:
            page.click(f"#exports [data-format='{kind}']:has-text('about')")
        assert download.value.suggested_filename.startswith("trace-demo-")
        download.value.save_as(tmp_path / f"trace.{kind}")
    assert pd.read_csv(tmp_path / "trace.csv")["token"].iloc[0] == "'=cmd"
    assert load_trace(tmp_path / "trace.parquet") == studio.answer


def test_a_second_visitor_sees_nothing_of_the_first(open_page, url, browser):
    first, second = open_page(url), open_page(url, context=browser.new_context())
    first.fill("#prompt textarea", "mine")
    first.click("#run")
    first.wait_for_selector(".tok")
    second.reload()
    second.wait_for_selector("#workbench .empty")
    assert second.input_value("#prompt textarea") == ""


def test_hostile_names_in_the_bank_card_are_shown_as_text(open_page, serving):
    hostile = "<img src=x onerror=window.hit=1>${window.hit=1}{{x}}\ud800"
    card = FakeCard(bank=hostile, base=hostile, experts=(FakeExpert(hostile, hostile, (hostile,)),))
    address = serving(source_of(FakeStudio(card)))
    page = open_page(address)
    assert "onerror=window.hit=1>${window.hit=1}{{x}}" in page.inner_text("#bank h2")
    assert page.evaluate("window.hit") is None


@pytest.mark.parametrize("width", [1400, 900, 600, 390])
def test_the_page_fits_its_window_and_the_sidebar_hides_nothing(open_page, url, width):
    page = open_page(url, width=width)
    sidebar, handle = page.locator("#sidebar.open"), page.locator("#sidebar .toggle-button")
    if width > 900:
        sidebar.wait_for()
    else:
        page.wait_for_timeout(500)
        assert not sidebar.count(), "closed from the start"
        for close in (
            lambda: page.keyboard.press("Escape"),
            lambda: page.mouse.click(width - 9, 400),
        ):
            handle.click()
            sidebar.wait_for()
            close()
            sidebar.wait_for(state="detached")
    page.get_by_role("button", name="Mixed").click()
    page.wait_for_selector(".tok")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_logged_in_visitor_traces_too(open_page, serving):
    address = serving(source_of(FakeStudio()), password="secret")
    page = open_page(address, ready=False)
    page.get_by_label("username").fill("ann")
    page.get_by_label("password").fill("secret")
    page.get_by_role("button", name="Login").click()
    page.wait_for_selector("#run:not([disabled])")
    page.fill("#prompt textarea", "hello")
    page.click("#run")
    page.wait_for_selector(".bar .value:not(.rough)")


def test_the_server_looked_up_no_name_but_its_own():
    assert set(_LOOKED_UP) <= {None, "127.0.0.1", "localhost", b"127.0.0.1", b"localhost"}
