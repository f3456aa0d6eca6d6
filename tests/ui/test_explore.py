"""Explore: a long text says how far it is and can be stopped."""

from threading import Event

import pytest
from patience import PATIENCE

from lmoe_studio.ui.runs import RunBook

LONG = " ".join(["word"] * 550)


@pytest.mark.parametrize("by", ["button", "key"])
def test_a_long_text_says_how_far_it_is_and_what_was_read_is_shown_when_stopped(page, studio, by):
    page.fill("#prompt textarea", LONG)
    with studio.held(read=200):
        page.click("#run")
        page.get_by_text("Tracing: 200 of 551 tokens").wait_for()
        if by == "button":
            page.click("#trace-stop")
        else:
            page.keyboard.press("Escape")
        page.wait_for_selector("#workbench .tok")
    assert page.locator("#workbench .tok").count() == 200
    assert "the first 200 of 551 tokens" in page.inner_text("#notice")
    assert page.locator("#run").is_enabled()
    assert page.locator("#trace-stop").is_disabled()
    assert page.inner_text("#trace-stop") == "Stop"
    page.click("#exports [data-format='parquet']", trial=True)


def test_stop_says_that_it_was_pressed_until_the_run_has_ended_however_late_it_is_heard(
    page, studio, monkeypatch
):
    """The Studio's word that it stops comes after the end of the run."""
    stop, heard, over = RunBook.stop, Event(), Event()

    def late(self, user, key):
        found = stop(self, user, key)
        heard.set()
        assert over.wait(PATIENCE)
        return found

    monkeypatch.setattr(RunBook, "stop", late)
    page.fill("#prompt textarea", LONG)
    with studio.held(read=200):
        page.click("#run")
        page.get_by_text("Tracing: 200 of 551 tokens").wait_for()
        with page.expect_response(lambda answer: "/run/predict" in answer.url and heard.is_set()):
            page.click("#trace-stop")
            page.wait_for_selector("#workbench .tok")
            over.set()
    page.wait_for_timeout(500)
    assert page.inner_text("#trace-stop") == "Stop"


def test_two_visitors_are_read_side_by_side(page, url, open_page, studio):
    other = open_page(url)
    page.fill("#prompt textarea", LONG)
    with studio.held(read=200):
        page.click("#run")
        page.get_by_text("Tracing: 200 of 551 tokens").wait_for()
        other.fill("#prompt textarea", "short")
        other.click("#run")
        other.wait_for_selector("#workbench .tok")
        assert page.locator("#workbench .tok").count() == 0, "the long one is still being read"
    page.wait_for_selector("#workbench .tok")
    assert page.locator("#workbench .tok").count() == 551
    assert page.inner_text("#notice").strip() == ""
