"""The page by its keys: tabs, help, heatmap, and what is said aloud."""

import pytest

pytestmark = pytest.mark.slow
TABS = ("Explore", "Compose", "Compare", "Analyse", "Train")


def chosen(page, name):
    page.locator("#tabs [role=tab][aria-selected=true]").get_by_text(name, exact=True).wait_for()


def test_alt_and_a_digit_goes_to_a_tab_from_wherever_one_is(page):
    page.focus("#prompt textarea")
    for number in (2, 5, 3, 4, 1):
        page.keyboard.press(f"Alt+{number}")
        chosen(page, TABS[number - 1])
    assert page.input_value("#prompt textarea") == ""


def test_arrows_move_between_tabs_and_each_names_its_panel(page):
    page.get_by_role("tab", name="Explore").focus()
    for key, name in (
        ("ArrowRight", "Compose"), ("End", "Train"), ("ArrowRight", "Explore"),
        ("ArrowLeft", "Train"), ("Home", "Explore"),
    ):  # fmt: skip
        page.keyboard.press(key)
        chosen(page, name)
        assert page.evaluate("document.activeElement.textContent").strip() == name
        page.wait_for_function(
            "() => { const tab = document.activeElement; const id = tab.getAttribute('aria-controls');"
            " return id && document.getElementById(id)?.getAttribute('role') === 'tabpanel'"
            " && document.getElementById(id).offsetParent }"
        )


def test_a_question_mark_shows_every_key_and_escape_only_closes_that(page):
    page.focus("#prompt textarea")
    page.keyboard.press("?")
    assert page.input_value("#prompt textarea") == "?"
    page.get_by_role("tab", name="Explore").focus()
    page.keyboard.press("?")
    help_ = page.get_by_role("dialog", name="Keys")
    help_.wait_for()
    for words in ("Alt+1", "Ctrl+Enter", "Escape", "first token that differs"):
        assert words in help_.inner_text()
    page.keyboard.press("Escape")
    help_.wait_for(state="hidden")
    page.click("#keys-help")
    help_.wait_for()
    help_.get_by_label("Close").click()
    help_.wait_for(state="hidden")


def test_the_heatmap_is_reached_and_moved_in_by_keys_and_a_single_view_is_said(show):
    from fake_studio import make_trace

    page = show(make_trace([f" w{number}" for number in range(9)], layers=4))
    page.focus(".stage canvas")

    def said(text):
        page.wait_for_function(
            "text => document.querySelector('.live').textContent.includes(text)", arg=text
        )

    page.keyboard.press("Home")
    said("token 0")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    said("token 1 '␣w1', layer 0")
    page.keyboard.press("2")
    said("Shown alone: french. token 1")
    page.keyboard.press("0")
    page.wait_for_function("!document.querySelector('.live').textContent.includes('alone')")
