"""Tabs that are opened late, banks that change meanwhile: every part has what it needs."""

import random
from functools import partial

import pytest
from fake_studio import FakeCard, FakeExpert, FakeStudio
from page_server import source_of
from patience import PATIENCE
from ports import free_port
from waits import keeping, one_run

from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.ui.serve import serve
from lmoe_studio.ui.source import StudioSource

PARTS = {
    "Explore": ["#run:not([disabled])", "#workbench :is(.empty, .tok)"],
    "Compose": [
        "#generate:not([disabled])", "#save-adapter:not([disabled])", "#composer .mixer .row",
        "#composer .overrides .none", "#composer .presets select", "#compose-workbench .empty",
    ],
    "Compare": [
        "#compare:not([disabled])", "#picker select[aria-label='Plan B']", "#picker .tools button",
    ],
    "Analyse": ["#study:not([disabled])", "#study-notice .panel", "#corpus-options"],
    "Train": [
        "#start:not([disabled])", "#skills .rows input", "#options .field", "#jobs-empty .panel",
    ],
}  # fmt: skip
"""What stands in a tab once it is opened."""
MINE = FakeCard(bank="mine", experts=tuple(FakeExpert(name) for name in ("sql", "poems", "law")))


def open_tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()
    for part in PARTS[name]:
        page.locator(part).first.wait_for()


def rows(page):
    return page.locator("#composer .row .name").all_inner_texts()


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.release) for n in (1, 2))])
def test_every_part_of_a_tab_is_there_however_late_it_is_opened(open_page, url, seed):
    chance = random.Random(seed)
    page = open_page(url)
    tabs = list(PARTS)
    chance.shuffle(tabs)
    for tab in tabs:
        page.wait_for_timeout(1000 * chance.choice([0, 1, 3.5, 5]))
        open_tab(page, tab)
    for tab in tabs:
        open_tab(page, tab)
    assert len(rows(page)) == 8
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.get_by_text("Sweep one expert's strength").click()
    page.wait_for_function("document.querySelector('#sweep-expert input')?.value === 'sql'")


def test_a_kept_plan_is_applied_however_late_its_tab_is_opened(page, studio):
    open_tab(page, "Compose")
    page.click("#composer [aria-label='Solo sql']")
    wanted = RoutingPlan([Override.solo("sql")])
    for tab, button in (("Compose", "#generate"), ("Compare", "#compare")):
        page.reload()
        page.wait_for_timeout(5000)
        open_tab(page, tab)
        if tab == "Compare":
            page.select_option("#picker [aria-label='Plan A']", "compose")
        box = f"{button.replace('generate', 'compose')}-prompt textarea"
        page.fill(box, "one two")
        before = len(studio.plans)
        with one_run(page, button):
            page.click(button)
        assert wanted in studio.plans[before:]


def banks():
    """A source of two banks that share one expert's name."""
    studios = {"demo": FakeStudio(), "mine": FakeStudio(MINE)}
    source = StudioSource(lambda bank, on_progress: studios[bank], lambda: list(studios))
    source.start("demo")
    return source, studios


def load_bank(page, name):
    page.fill("#bank-name input", name)
    page.keyboard.press("Enter")
    page.click("#bank-load")
    page.locator("#bank h2").get_by_text(name).wait_for()


def test_tabs_that_were_never_opened_follow_a_change_of_the_bank(open_page, serving):
    source, _ = banks()
    page = open_page(serving(source))
    page.wait_for_timeout(4000)
    load_bank(page, "mine")
    page.wait_for_timeout(4000)
    open_tab(page, "Compose")
    assert rows(page) == ["sql", "poems", "law"]
    assert not page.locator("#facts p").count(), "the page did it itself"
    open_tab(page, "Compare")
    options = page.locator("#picker [aria-label='Plan B'] option").all_inner_texts()
    assert options[-3:] == ["solo sql", "solo poems", "solo law"]
    load_bank(page, "demo")
    open_tab(page, "Compose")
    page.wait_for_function("document.querySelectorAll('#composer .row').length === 8")


def test_each_bank_has_its_own_plan_and_the_page_says_what_it_does_not_apply(open_page, serving):
    source, studios = banks()
    page = open_page(serving(source))
    open_tab(page, "Compose")
    page.click("#composer [aria-label='Solo sql']")
    page.fill("[aria-label='Name of a new preset']", "of french")
    page.click("#composer [aria-label='Solo french']")
    page.get_by_title("Save mixer and overrides in this browser").click()
    load_bank(page, "mine")
    page.locator("#composer .told").get_by_text("The plan for demo is put aside").wait_for()
    assert page.locator("#composer .row [aria-pressed=true]").count() == 0
    page.get_by_title("Load the preset").click()
    told = page.locator("#composer .told").inner_text()
    assert (
        told == "Not applied: what this plan says of french, as the bank mine has no such expert."
    )
    page.fill("#compose-prompt textarea", "one two")
    with one_run(page):
        page.click("#generate")
    assert studios["mine"].plans == [RoutingPlan([Override.solo("sql")])]
    load_bank(page, "demo")
    page.wait_for_function("document.querySelectorAll('#composer .row').length === 8")
    assert page.locator("#composer .row [aria-pressed=true]").count() == 2


def test_a_bank_changed_in_another_window_is_told_and_what_was_made_before_stays_its_own(
    open_page, serving
):
    address = serving(banks()[0])
    mine, other = open_page(address), open_page(address)
    other.fill("#prompt textarea", "one two")
    other.click("#run")
    other.wait_for_selector("#workbench .tok")
    letters = other.locator("#workbench .chip").all_inner_texts()
    open_tab(other, "Compare")
    other.fill("#compare-prompt textarea", "one two")
    other.click("#compare")
    other.wait_for_selector("#comparison .columns")
    load_bank(mine, "mine")
    other.locator("#facts").get_by_text("from demo to mine in another window").wait_for()
    assert not mine.locator("#facts p").count()
    said = "This was made with the bank demo, and mine is loaded now."
    other.locator("#comparison .notices").get_by_text(said).wait_for()
    other.get_by_role("tab", name="Explore", exact=True).click()
    other.locator("#workbench .notices").get_by_text(said).wait_for()
    assert other.locator("#workbench .chip").all_inner_texts() == letters
    other.get_by_label("Close this note").click()
    load_bank(mine, "demo")
    other.locator("#workbench .notices").get_by_text(said).wait_for(state="detached")
    open_tab(other, "Compose")
    assert len(rows(other)) == 8


def test_a_comparison_outlives_a_reload(page):
    open_tab(page, "Compare")
    page.fill("#compare-prompt textarea", "one two")
    with keeping(page, "comparison"), one_run(page, "#compare"):
        page.click("#compare")
    texts = page.locator("#comparison .tok").all_inner_texts()
    page.get_by_text("Sweep one expert's strength").click()
    with keeping(page, "sweep"), one_run(page, "#run-sweep"):
        page.click("#run-sweep")
    page.wait_for_selector("#swept table")
    page.reload()
    page.wait_for_timeout(3500)
    open_tab(page, "Compare")
    page.wait_for_selector("#comparison .columns")
    assert page.locator("#comparison .tok").all_inner_texts() == texts
    page.get_by_text("Sweep one expert's strength").click()
    page.wait_for_selector("#swept table")


def test_a_studio_that_is_gone_is_said_and_so_is_what_a_new_one_does_not_have(browser, tmp_path):
    port = free_port()
    start = partial(serve, source_of(FakeStudio()), "127.0.0.1", port, jobs=Jobs(tmp_path))
    app, page = start(), browser.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    try:
        page.goto(f"http://127.0.0.1:{port}")
        page.wait_for_selector("#run:not([disabled])")
        open_tab(page, "Compose")
        page.click("#composer [aria-label='Solo sql']")
        for tab, act in (("Explore", "#run"), ("Compose", "#generate"), ("Compare", "#compare")):
            page.get_by_role("tab", name=tab, exact=True).click()
            page.locator("textarea:visible").first.fill("one two")
            with one_run(page, act):
                page.click(act)
            page.locator(".tok:visible").first.wait_for()
        app.close(verbose=False)
        page.locator("#status").get_by_text("does not answer").wait_for()
        page.locator(".lost").get_by_text("comes back when the Studio does").wait_for()
        assert not page.locator(".toast-wrap").is_visible(), "one message, not two"
        app = start()
        page.locator("#status").get_by_text("Ready").wait_for()  # the page loads itself anew
        for tab, place in (("Explore", "#workbench"), ("Compose", "#compose-workbench"),
                           ("Compare", "#comparison")):  # fmt: skip
            page.get_by_role("tab", name=tab, exact=True).click()
            page.locator(f"{place} .gone").get_by_text("no longer has").wait_for()
        page.get_by_role("tab", name="Compose", exact=True).click()
        page.wait_for_selector("#composer [aria-pressed=true]")
        assert page.locator("#composer [aria-pressed=true]").count() == 1
    finally:
        page.close()
        app.close(verbose=False)
