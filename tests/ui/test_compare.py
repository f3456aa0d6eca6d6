"""The Compare tab: what is said of two runs, and the tab itself in a browser."""

import json
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from fake_studio import FakeStudio, make_trace
from job_processes import until
from patience import PATIENCE
from test_layout import banks, load_bank, open_tab
from test_workbench import HOSTILE
from waits import keeping, one_run

from lmoe_studio.errors import PlanError
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.ui.compared import comparison_view, prompt_length, routing_difference, warnings
from lmoe_studio.ui.comparing import check, strongest_of
from lmoe_studio.ui.plan_form import read_picks
from lmoe_studio.ui.runs import RunBook, in_background

SQL = RoutingPlan([Override.solo("sql")])
FRENCH = RoutingPlan([Override.solo("french")])


def compared(a, b, **options):
    plans = {"A": a, "B": b}
    return FakeStudio().compare("one two", plans, max_new_tokens=6, **options), plans


def with_weights(rows):
    trace = make_trace(["a"], layers=1, experts=("x", "y"))
    return replace(trace, routing_weights=np.array([[rows]], dtype=np.float32))


@pytest.mark.parametrize(
    ("one", "other", "divergence"),
    [
        ([0.5, 0.5], [0.5, 0.5], 0),
        ([1, 0], [0, 1], 1),
        ([2, 0], [1, 0], 0),  # the sum does not count
        ([0, 0], [0, 0], 0),
        ([0, 0], [0.5, 0.5], 1),
        ([1, 0], [0.5, 0.5], 0.3112781),
    ],
)
def test_routing_difference_is_the_jensen_shannon_divergence(one, other, divergence):
    got = routing_difference(with_weights(one), with_weights(other), 1)
    np.testing.assert_allclose(got, [[divergence]], atol=1e-6)


def test_a_comparison_tells_where_texts_part_and_differs_over_what_they_share():
    made, plans = compared(RoutingPlan(), SQL, reference="x")
    view = comparison_view(made, plans)
    assert [run["name"] for run in view["runs"]] == ["base", "A", "B"]
    # Three words are the same whatever the plan; the prompt has three tokens.
    assert ("A", "B", 6) in view["divergences"]
    assert view["differences"] is not None
    assert view["differences"]["shape"] == (6, 30)
    assert view["runs"][1]["reference"] == -2.5
    assert view["runs"][1]["plan"] == "Router alone"
    assert view["runs"][2]["plan"] == "solo('sql')"
    trace = made.runs["A"].trace
    assert prompt_length(trace) == 3


def test_different_plans_that_write_the_same_are_warned_about():
    made, plans = compared(SQL, FRENCH)
    assert any("A and B ask for different things" in line for line in warnings(made, plans))
    made, plans = compared(SQL, SQL)
    assert warnings(made, plans) == ["A and B are the same plan, so they write the same text."]


def test_picks_are_checked():
    solo = {"operation": "solo", "weights": {"sql": 1}}
    assert read_picks({"a": {"overrides": []}, "b": {"overrides": [solo]}}) == (RoutingPlan(), SQL)
    assert read_picks({"a": {"json": SQL.to_json()}}) == (SQL, RoutingPlan())
    assert read_picks({}) == (RoutingPlan(), RoutingPlan())
    for pick in ({"json": "{"}, {"overrides": 3}, 3, {"overrides": [3]}):
        with pytest.raises(PlanError, match=r"^Plan B"):
            read_picks({"b": pick})


def test_work_in_the_background_ends_when_nobody_waits_any_more():
    stop, ended = Event(), Event()

    def work():
        assert stop.wait(PATIENCE)
        ended.set()

    going = in_background(work, stop)
    assert next(going) > 0
    going.close()
    assert ended.is_set()


def test_a_run_is_stopped_only_by_its_own_user():
    book = RunBook()
    with book.running("ann") as (key, stop):
        assert not book.stop("bob", key)
        assert not book.stop("ann", None)
        assert not stop.is_set()
        assert book.stop("ann", key)
        assert stop.is_set()
    assert len(book) == 0
    assert not book.stop("ann", key)


@pytest.fixture
def compare(page):
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector("#compare:not([disabled])")
    page.wait_for_selector("#picker select")
    return page


def choose(page, a=None, b=None):
    for side, choice in (("A", a), ("B", b)):
        if choice:
            page.locator(f"select[aria-label='Plan {side}']").select_option(choice)


def run(page, text="one two"):
    page.fill("#compare-prompt textarea", text)
    with one_run(page, "#compare"):
        page.click("#compare")
    return page


def picks(page):
    return [page.input_value(f"select[aria-label='Plan {side}']") for side in "AB"]


def test_runs_stand_side_by_side_and_d_goes_to_where_they_part(compare):
    choose(compare, "router", "solo:french")
    compare.fill("#reference textarea", "a reference")
    run(compare)
    compare.wait_for_selector("#comparison .column >> nth=2")
    heads = compare.locator("#comparison .column .head strong").all_inner_texts()
    assert heads == ["Base model", "A", "B"]
    assert compare.locator("#comparison .tok.parting").count() == 3
    compare.focus("#comparison .strip >> nth=1")
    compare.keyboard.press("d")
    marked = compare.locator("#comparison .tok.selected").all_inner_texts()
    assert marked == ["other3", "word3", "other3"]
    assert "log-prob of the reference" in compare.inner_text("#comparison table")
    assert compare.eval_on_selector("#comparison canvas", "c => [c.width, c.height]") == [6, 30]
    compare.locator("#comparison canvas").click(position={"x": 3, "y": 5})
    assert compare.locator("#comparison .tok.selected").count() == 3
    assert "Jensen-Shannon" in compare.inner_text("#comparison .map")


def test_every_parting_is_marked_in_the_columns_it_is_between(compare):
    choose(compare, "router", "solo:math")
    run(compare)
    compare.wait_for_selector("#comparison .column >> nth=2")
    marks = compare.eval_on_selector_all(
        "#comparison section.column",
        """all => all.map(column => [...column.querySelectorAll('.parting')].map(
             mark => [Number(mark.dataset.index), mark.textContent, mark.dataset.parts]))""",
    )
    base, a, b = marks
    assert base == [[6, "other3", "≠ A, B"]]
    assert a == [[6, "word3", "≠ Base model"], [8, "word5", "≠ B"]]
    assert b == [[6, "word3", "≠ Base model"], [8, "other5", "≠ A"]]
    words = compare.locator("#comparison .partings button").all_inner_texts()
    assert words == ["Base model | A: token 6", "Base model | B: token 6", "A | B: token 8"]


def test_a_map_of_one_colour_is_a_sentence(compare):
    choose(compare, "solo:math", "solo:french")
    run(compare)
    compare.get_by_text("they have no expert in common").wait_for()
    choose(compare, "router", "router")
    run(compare)
    compare.get_by_text("The routing of A and B is the same at every").wait_for()
    assert compare.locator("#comparison canvas").count() == 0


def test_examples_are_compared_at_once(compare, studio):
    before = len(studio.plans)
    compare.locator(".starts:visible button").get_by_text("French").click()
    compare.wait_for_selector("#comparison .column >> nth=2")
    assert compare.input_value("#compare-prompt textarea").startswith("Le soir")
    assert len(studio.plans) == before + 3


def test_the_expert_to_sweep_is_plan_as_strongest_until_one_is_chosen(compare):
    compare.get_by_role("button", name="Sweep one expert").click()
    expert = compare.locator("#sweep-expert input")

    def becomes(name):
        compare.wait_for_function(
            "name => document.querySelector('#sweep-expert input').value === name", arg=name
        )

    choose(compare, a="solo:drama")
    becomes("drama")
    pinned = RoutingPlan([Override.pin({"sql": 0.2, "math": 0.5, "prose": 0.3})])
    choose(compare, a="json")
    compare.fill("textarea[aria-label='Plan A as JSON']", pinned.to_json())
    becomes("math")
    expert.click()
    compare.locator("[role=option]").get_by_text("french").click()
    choose(compare, b="solo:prose")
    compare.wait_for_timeout(1500)  # and it stays
    becomes("french")
    # The router alone: what it gave most in the last comparison.
    choose(compare, a="router", b="solo:french")
    run(compare)
    trace = make_trace(["<|im_start|>", *["one", " two"], *[f" word{n}" for n in range(64)]])
    becomes(trace.experts[int(trace.routing_weights.mean(axis=(0, 1)).argmax())])


def test_what_is_picked_and_not_there_is_said_for_as_long(open_page, serving):
    source, _ = banks()
    page = open_page(serving(source))
    open_tab(page, "Compare")
    choose(page, "solo:sql", "solo:french")
    load_bank(page, "mine")
    said = "B is the router alone: there is no expert “french” in the bank mine."
    told = page.locator("#picker .told")
    told.get_by_text(said).wait_for()
    assert page.locator("#picker [aria-label='Plan B'] option:checked").inner_text() == (
        "solo french: not here, so the router alone"
    )
    page.reload()
    page.wait_for_timeout(3500)
    open_tab(page, "Compare")
    told.get_by_text(said).wait_for()
    run(page)
    page.wait_for_selector("#comparison .column >> nth=2")
    assert page.locator("#comparison .plan").all_inner_texts()[2] == "Router alone"
    load_bank(page, "demo")
    page.wait_for_function("document.querySelector('#picker .told').textContent === ''")
    assert picks(page) == ["solo:sql", "solo:french"]
    choose(page, b="compose")
    told.get_by_text("B is the router alone: the plan in Compose holds nothing").wait_for()
    choose(page, b="router")
    page.wait_for_function("document.querySelector('#picker .told').textContent === ''")


@pytest.mark.parametrize(
    ("plan", "expert"),
    [
        ([], None),
        ([Override.solo("sql")], "sql"),
        ([Override.solo("sql"), Override.pin({"math": 0.2, "prose": 0.3})], "prose"),
        ([Override.solo("sql"), Override.ban("sql")], "sql"),
        ([Override.bias({"sql": -3})], None),
        ([Override.solo("sql", strength=0)], None),
        ([Override.bypass()], None),
    ],
)
def test_the_strongest_of_a_plan(plan, expert):
    assert strongest_of(RoutingPlan(plan)) == expert


def test_plans_that_change_nothing_are_warned_about(compare):
    choose(compare, "solo:sql", "solo:french")
    run(compare)
    compare.get_by_text("A and B ask for different things").wait_for()


def test_swap_and_promote(compare):
    choose(compare, "router", "solo:french")
    compare.get_by_role("button", name="Swap").click()
    assert picks(compare) == ["solo:french", "router"]
    compare.get_by_role("button", name="Promote B to A").click()
    assert picks(compare) == ["router", "router"]


def test_the_composers_plan_and_pasted_plans_can_be_compared(compare, studio):
    compare.get_by_role("tab", name="Compose").click()
    compare.click("#composer [aria-label='Solo math']")
    compare.get_by_role("tab", name="Compare").click()
    choose(compare, "compose", "json")
    compare.fill("textarea[aria-label='Plan B as JSON']", FRENCH.to_json())
    run(compare)
    compare.wait_for_selector("#comparison .column >> nth=2")
    assert studio.plans[-2:] == [RoutingPlan([Override.solo("math")]), FRENCH]


def test_mistakes_are_sentences_and_nothing_typed_is_lost(compare, studio):
    choose(compare, "router", "json")
    compare.fill("textarea[aria-label='Plan B as JSON']", "{")
    run(compare)
    compare.locator("#compare-notice").get_by_text("Plan B is not JSON").wait_for()
    assert compare.input_value("textarea[aria-label='Plan B as JSON']") == "{"
    unknown = {"overrides": [{"operation": "solo", "weights": {"sqll": 1}}]}
    compare.fill("textarea[aria-label='Plan B as JSON']", json.dumps(unknown))
    run(compare)
    compare.locator("#compare-notice").get_by_text("did you mean 'sql'").wait_for()
    choose(compare, b="solo:sql")
    run(compare, "  ")
    compare.locator("#compare-notice").get_by_text("Nothing to begin with").wait_for()
    studio.answer = ZeroDivisionError("/secret")
    run(compare)
    compare.locator("#compare-notice").get_by_text("incident").wait_for()
    assert "/secret" not in compare.content()


def test_stop_ends_a_comparison(compare, studio):
    compare.fill("#compare-prompt textarea", "one two")
    before = studio.steps
    with studio.held():
        with one_run(compare, "#compare"):
            compare.click("#compare")
            compare.wait_for_selector("#compare-stop:not([disabled])")
            compare.keyboard.press("Escape")
        until(lambda: not studio.going)
    assert studio.steps - before <= 3


def test_a_sweep_is_a_table_with_the_base_first(compare):
    compare.fill("#compare-prompt textarea", "one two")
    compare.get_by_role("button", name="Sweep one expert").click()
    compare.wait_for_selector("#run-sweep:not([disabled])")
    compare.click("#run-sweep")
    compare.wait_for_selector("#swept table")
    names = compare.locator("#swept tr th:first-child").all_inner_texts()
    assert names == ["", "Base model", "sql 0", "sql 0.25", "sql 0.5", "sql 0.75", "sql 1"]
    assert "word0" in compare.locator("#swept td.text").first.inner_text()


def test_hostile_text_is_shown_as_it_is(compare):
    run(compare, " ".join(HOSTILE))
    compare.wait_for_selector("#comparison .column >> nth=2")
    assert compare.evaluate("window.hit") is None
    assert compare.locator("#comparison :is(img, svg, script, b)").count() == 0


def test_a_reload_keeps_what_was_typed_and_picked(compare):
    choose(compare, "router", "solo:prose")
    with keeping(compare, "compared"):
        compare.fill("#compare-prompt textarea", "typed")
    compare.reload()
    compare.wait_for_selector("#run:not([disabled])")
    compare.get_by_role("tab", name="Compare").click()
    compare.wait_for_selector("#picker select")
    compare.wait_for_function(
        "document.querySelector('#compare-prompt textarea').value === 'typed'"
    )
    assert picks(compare) == ["router", "solo:prose"]


def test_a_plan_that_cannot_be_used_is_named(studio):
    plans = {"A": RoutingPlan(), "B": RoutingPlan([Override.solo("nobody")])}
    with pytest.raises(PlanError, match=r"^Plan B: .*nobody"):
        check(studio, "a text", plans)
