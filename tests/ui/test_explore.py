"""Explore: a long text says how far it is and can be stopped."""

import pytest

LONG = " ".join(["word"] * 550)


@pytest.fixture
def slow(page, studio):
    studio.pause = 0.7
    yield page
    studio.pause = 0.0


@pytest.mark.parametrize("by", ["button", "key"])
def test_a_long_text_says_how_far_it_is_and_what_was_read_is_shown_when_stopped(slow, by):
    slow.fill("#prompt textarea", LONG)
    slow.click("#run")
    slow.get_by_text("Tracing: 200 of 551 tokens").wait_for()
    if by == "button":
        slow.click("#trace-stop")
    else:
        slow.keyboard.press("Escape")
    slow.wait_for_selector("#workbench .tok")
    read = slow.locator("#workbench .tok").count()
    assert read in range(200, 551, 100)
    assert f"the first {read} of 551 tokens" in slow.inner_text("#notice")
    assert slow.locator("#run").is_enabled()
    assert slow.locator("#trace-stop").is_disabled()
    assert slow.inner_text("#trace-stop") == "Stop"
    slow.click("#exports [data-format='parquet']", trial=True)


def test_two_visitors_are_read_side_by_side(slow, url, open_page, studio):
    other = open_page(url)
    slow.fill("#prompt textarea", LONG)
    slow.click("#run")
    slow.get_by_text("Tracing: 200 of 551 tokens").wait_for()
    other.fill("#prompt textarea", "short")
    other.click("#run")
    other.wait_for_selector("#workbench .tok")
    assert slow.locator("#workbench .tok").count() == 0, "the long one is still being read"
    slow.wait_for_selector("#workbench .tok")
    assert slow.locator("#workbench .tok").count() == 551
    assert slow.inner_text("#notice").strip() == ""
