"""The Compose tab in a browser: the mixer, the overrides, the preview, and texts as they grow."""

import json
import zipfile
from base64 import b64decode
from dataclasses import replace
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
from fake_studio import make_trace
from job_processes import until
from patience import PATIENCE
from test_workbench import HOSTILE
from waits import at_rest, keeping, one_run

from lmoe_studio.errors import PlanError
from lmoe_studio.routing.plan import Override, RoutingPlan, Span
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.ui import runs as runs_module
from lmoe_studio.ui.payload import trace_payload
from lmoe_studio.ui.runs import RunBook
from lmoe_studio.ui.traces import TraceStore

PLAN = RoutingPlan(
    [
        Override.solo("sql", layers=Span(start=10), tokens="generated"),
        Override.pin({"sql": 0.5, "french": -1}, renormalise=False, layers=[0, 2, 3]),
        Override.bias({"math": -3}, tokens={"text": "SELECT"}),
        Override.ban("drama", "prose", tokens={"regex": r"\d+"}, strength=0.5),
        Override.temperature(0.5, tokens={"steps": {"start": 2, "stop": 9}}),
        Override.top_k(2, tokens=[4, 6, 7]),
        Override.uniform(),
        Override.bypass(tokens=[3]),
    ]
)
MEASURE = """
async (count) => {
  const shown = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const slider = document.querySelector('#composer .row input[type=range]');
  const workbench = document.querySelector('#compose-workbench .workbench');
  const times = [];
  for (let i = 1; i <= count; i++) {
    await shown();
    const start = performance.now();
    slider.value = 0.02 + (i % 40) / 30;
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    do await shown(); while (workbench.ariaBusy === 'true');
    times.push(performance.now() - start);
  }
  return times;
}
"""


@pytest.fixture
def compose(page):
    """The tab, as someone finds it who comes for the first time."""
    return opened(page)


def opened(page):
    page.get_by_role("tab", name="Compose").click()
    page.wait_for_selector("#generate:not([disabled])")
    page.wait_for_selector("#composer .row")
    at_rest(page)
    return page


def generate(page, text=None):
    if text is not None:
        page.fill("#compose-prompt textarea", text)
    with one_run(page):
        page.click("#generate")
    return page


def words(page):
    return page.locator("#compose-workbench .tok").all_text_contents()


def shares(page):
    chips = page.locator("#compose-workbench .chip .share").all_inner_texts()
    return [int(chip.removesuffix(" %")) for chip in chips]


def previewed(page):
    """Once the preview is that of the present plan, however late it comes."""
    page.wait_for_selector(
        "#compose-workbench .workbench[aria-busy=false]:not(.growing, :has-text('has not answered yet'))"
    )
    return page


def weights(page):
    """What the bars say, with the present plan."""
    rows = previewed(page).locator("#compose-workbench .bar:not(.head) .value").all_inner_texts()
    return [float(row) for row in rows]


def use_plan(page, plan):
    if not page.locator("#plan-text").is_visible():
        page.get_by_role("button", name="Plan as JSON").click()
    page.fill("#plan-text textarea", plan.to_json())
    with page.expect_event("console", lambda line: line.text == "planned"):
        page.evaluate("addEventListener('lmoe:plan', () => console.log('planned'), { once: true })")
        page.get_by_role("button", name="Use this plan").click()
    return previewed(page)


def plan_now(page):
    """The plan that the page would send, by way of its JSON."""
    if not page.locator("#plan-text").is_visible():
        page.get_by_role("button", name="Plan as JSON").click()
    page.fill("#plan-text textarea", "")
    page.get_by_role("button", name="Write the present plan here").click()
    page.wait_for_function("document.querySelector('#plan-text textarea').value")
    return RoutingPlan.from_json(page.input_value("#plan-text textarea"))


def slide(page, name, value):
    page.locator(f"#composer input[type=range][aria-label='{name}']").fill(str(value))


def test_a_text_grows_from_its_prompt_and_ends(compose, studio):
    studio.pause = 0.2
    compose.fill("#compose-prompt textarea", "one two")
    with one_run(compose):
        compose.locator("#compose-prompt textarea").press("Control+Enter")
        compose.wait_for_selector("#generate[disabled]")
        compose.wait_for_selector(".growing .tok")
        first = len(words(compose))
        compose.wait_for_function(
            "n => document.querySelectorAll('.growing .tok').length > n + 2", arg=first
        )
        studio.pause = 0.0  # the rest at once
    assert words(compose)[:5] == ["<|im_start|>", "one", "two", "word0", "word1"]
    assert compose.locator("#compose-workbench .boundary").count() == 1
    assert compose.locator(".growing").count() == 0
    assert "Generated 64 tokens" in compose.inner_text("#status")
    compose.wait_for_selector("#compose-workbench .bar .value:not(.rough)")


def test_a_selection_stays_while_the_text_grows(compose, studio):
    compose.fill("#compose-prompt textarea", "one two")
    with one_run(compose), studio.held():
        compose.click("#generate")
        compose.wait_for_selector(".growing .tok")
        compose.evaluate("document.querySelectorAll('#compose-workbench .tok')[1].click()")
    assert len(words(compose)) == 67
    selected = compose.locator("#compose-workbench .tok.selected").all_inner_texts()
    assert selected == ["one"]


@pytest.mark.parametrize("by", ["button", "key"])
def test_stop_ends_it_within_a_token_or_two(compose, studio, by):
    compose.fill("#compose-prompt textarea", "one two")
    before = studio.steps
    with studio.held(5):
        with one_run(compose):
            compose.click("#generate")
            compose.wait_for_selector(".growing .tok")
            until(lambda: studio.steps == before + 5)
            if by == "button":
                compose.click("#stop")
            else:
                compose.keyboard.press("Escape")
        until(lambda: not studio.going)
    compose.get_by_text("Partial: stopped after 5 of 64 tokens").wait_for()
    assert studio.steps == before + 5
    assert len(words(compose)) == 3 + 5


def test_escape_stops_wherever_the_focus_is(compose, studio):
    for focus in ("#compose-workbench .strip", "#sidebar input", "#composer select"):
        compose.fill("#compose-prompt textarea", "one two")
        with studio.held(), one_run(compose):
            compose.click("#generate")
            compose.wait_for_selector(".growing .tok")
            compose.evaluate("document.querySelectorAll('#compose-workbench .tok')[1].click()")
            compose.focus(focus)
            compose.keyboard.press("Escape")
        compose.get_by_text("Partial: stopped after").wait_for()
        assert compose.locator(".tok.selected").all_inner_texts() == ["one"], "one act a key"
    compose.focus("#compose-workbench .strip")
    compose.keyboard.press("Escape")
    assert not compose.locator(".tok.selected").count()


@pytest.mark.parametrize("act", ["#generate", "#continue"])
def test_escape_stops_what_the_studio_has_not_answered_yet(compose, studio, act):
    stopped_early(compose, studio)
    before, runs = studio.steps, len(studio.plans)
    with studio.held(), one_run(compose):
        compose.evaluate(
            """act => {
              document.querySelector(act).click();
              document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }));
            }""",
            act,
        )
    assert len(studio.plans) == runs + 1
    assert studio.steps - before <= 3
    before = studio.steps
    generate(compose)
    assert studio.steps - before == 64, "the key counted for one run"


def test_a_press_that_the_page_drops_is_made_again_and_runs_once(compose, studio):
    """As it is for a moment after a run, between its last answer and its end."""
    compose.evaluate(
        """() => document.querySelector('#generate').addEventListener(
          'click', (event) => event.stopImmediatePropagation(), { capture: true, once: true })"""
    )
    runs = len(studio.plans)
    generate(compose, "one two")
    assert len(studio.plans) == runs + 1
    compose.wait_for_timeout(1500)
    assert len(studio.plans) == runs + 1


def test_what_is_written_is_in_sight_and_so_is_stop(compose, studio):
    compose.get_by_role("button", name="Length, sampling, seed").click()
    for width, height in ((1000, 700), (1100, 900), (1400, 900), (600, 900)):
        compose.set_viewport_size({"width": width, "height": height})
        compose.evaluate("scrollTo(0, 0)")
        at_rest(compose)
        follow_what_is_written(compose, studio, width)
    compose.set_viewport_size({"width": 1400, "height": 900})


def follow_what_is_written(compose, studio, width):
    studio.pause = 0.03
    compose.fill("#compose-prompt textarea", "one two")
    with one_run(compose):
        compose.click("#generate")
    compose.wait_for_function(
        """() => {
          const last = [...document.querySelectorAll('#compose-workbench .tok')].at(-1);
          const { top, bottom } = last?.getBoundingClientRect() ?? {};
          const { bottom: ask } = document.querySelector('#compose-ask').getBoundingClientRect();
          return last?.textContent === 'word63' && Math.max(ask, 0) < top && bottom < innerHeight;
        }"""
    )
    at_rest(compose)
    if width > 768:
        top = compose.evaluate("document.querySelector('#continue').getBoundingClientRect().top")
        assert top >= 0, f"the way to go on is in sight too, {width} wide"


def stopped_early(page, studio):
    """A text of a few words, stopped on the way."""
    page.fill("#compose-prompt textarea", "one two")
    with studio.held(), one_run(page):
        page.click("#generate")
        page.wait_for_selector(".growing .tok")
        page.click("#stop")
    return len(words(page)) - 3


def go_on(page, count):
    """Continues, until the text has so many new words."""
    with one_run(page, "#continue"):
        page.click("#continue")
    assert len(words(page)) == 3 + count
    return page


@pytest.mark.parametrize("between", ["wander", "reload"])
def test_a_stopped_text_goes_on(compose, studio, between):
    assert compose.locator("#continue").is_disabled()
    written = stopped_early(compose, studio)
    compose.fill("#compose-prompt textarea", "something else")
    compose.get_by_role("tab", name="Explore").click()
    compose.wait_for_timeout(4000)
    compose.get_by_role("tab", name="Compose").click()
    if between == "reload":
        compose.reload()
        opened(compose)
        compose.wait_for_selector("#compose-workbench .tok")
    go_on(compose, written + 64)
    assert words(compose)[1:] == ["one", "two", *(f"word{step}" for step in range(written + 64))]
    assert "Generated 64 tokens" in compose.inner_text("#status")
    assert "Partial" not in compose.inner_text("#compose-workbench")
    go_on(compose, written + 128)


def test_it_goes_on_with_the_plan_as_it_is_now_and_what_is_selected_stays(compose, studio):
    written = stopped_early(compose, studio)
    compose.evaluate("document.querySelectorAll('#compose-workbench .tok')[2].click()")
    compose.click("#composer [aria-label='Solo french']")
    go_on(compose, written + 64)
    assert studio.plans[-1] == RoutingPlan([Override.solo("french")])
    assert words(compose)[3:5] == ["word0", "word1"]
    assert words(compose)[-1] == f"other{written + 63}"
    assert compose.locator("#compose-workbench .tok.selected").all_inner_texts() == ["two"]
    notices = compose.inner_text("#compose-workbench .notices")
    assert f"The first {written} new tokens were written under another plan" in notices
    assert compose.locator(".previewing").count() == 0


def test_a_text_that_the_studio_no_longer_has_is_not_gone_on_after(compose, studio, monkeypatch):
    stopped_early(compose, studio)
    monkeypatch.setattr(TraceStore, "get", lambda *_: None)
    compose.click("#continue")
    compose.locator("#compose-notice").get_by_text("no longer has the text").wait_for()
    assert compose.locator("#continue").is_disabled()
    assert compose.locator("#generate").is_enabled()


@pytest.mark.parametrize("how", ["close", "reload"])
def test_a_tab_that_goes_away_ends_its_run(browser, url, studio, how):
    # Gradio itself complains in the console when a stream is cut, so nobody listens here.
    page = browser.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(url)
    page.wait_for_selector("#run:not([disabled])")
    opened(page)
    page.fill("#compose-prompt textarea", "one two")
    studio.pause = 0.5  # half a minute, were it to go on to the end
    before = studio.steps
    page.click("#generate")
    page.wait_for_selector(".growing .tok")
    page.close() if how == "close" else page.reload()
    until(lambda: not studio.going)
    assert studio.steps - before < 64
    if how == "reload":
        page.close()


def test_the_slider_previews_and_the_text_stays_until_generate(compose, studio):
    generate(compose, "one two")
    before, text = shares(compose), words(compose)
    slide(compose, "sql", 2)
    compose.wait_for_selector("#compose-workbench .previewing")
    assert shares(previewed(compose))[0] > before[0]
    assert words(compose) == text
    assert "Preview: the plan has changed" in compose.inner_text("#compose-workbench .notices")
    assert compose.locator("#compose-workbench .tok.overridden").count() > 0
    slide(compose, "sql", 1)
    compose.wait_for_selector("#compose-workbench .previewing", state="detached")
    assert shares(compose) == before
    slide(compose, "sql", 2)
    generate(compose)
    assert studio.plans[-1] == RoutingPlan([Override.boost({"sql": 2})])
    compose.wait_for_selector("#compose-workbench .previewing", state="detached")
    assert "other5" in words(compose)


def test_the_preview_is_what_the_plan_makes_of_the_weights(compose):
    generate(compose, "one two three")
    own = make_trace([""] * len(words(compose))).routing_weights.astype(np.float64)

    slide(compose, "french", 2)
    compose.wait_for_selector("#compose-workbench .previewing")
    boosted = own * np.array([1, 2, 1, 1, 1, 1, 1, 1])
    boosted *= own.sum(-1, keepdims=True) / boosted.sum(-1, keepdims=True)
    np.testing.assert_allclose(weights(compose), boosted.mean((0, 1)), atol=0.006)
    compose.click("#composer [aria-label='Mute sql']")
    boosted[..., 0] = 0
    boosted *= own.sum(-1, keepdims=True) / boosted.sum(-1, keepdims=True)
    np.testing.assert_allclose(weights(compose), boosted.mean((0, 1)), atol=0.006)
    compose.get_by_role("button", name="Bypass all").click()
    assert weights(compose) == [0] * 8


PREVIEWED = [
    [Override.pin({"sql": 0.5, "french": 1}), Override.boost({"sql": 3}, renormalise=False)],
    [Override.bias({"math": 3, "prose": -2}), Override.temperature(0.5)],
    [Override.temperature(2.5, strength=0.5), Override.ban("sql", strength=0.7)],
    [Override.top_k(2), Override.uniform("sql", "math", tokens="prompt", layers=[3, 4])],
    [Override.solo("drama", layers=Span(start=10), tokens={"steps": {"start": 4}})],
    [Override.ban("sql", "math", tokens={"text": "two th"}), Override.bypass(tokens=[0, 9])],
    [Override.boost({"sql": -1}, renormalise=False, tokens=range(5, 40), strength=0.25)],
]


def test_the_preview_follows_the_real_rules(compose, studio):
    generate(compose, "one two three")
    tokens = [*words(compose)]
    tokens[1:] = [f" {word}" for word in tokens[1:]]
    trace = studio._written(studio.trace("one two three"), tokens, None)
    for overrides in PREVIEWED:
        plan = RoutingPlan(overrides)
        use_plan(compose, plan)
        assert compose.locator("#compose-workbench .previewing").count() == 1
        made = studio.preview(trace, plan).clip(min=0).mean((0, 1))  # views know no negative ones
        np.testing.assert_allclose(weights(compose), made, atol=0.008, err_msg=repr(plan))


def test_the_preview_waits_for_who_wanders_off(compose, studio):
    generate(compose, "one two")
    slide(compose, "sql", 2)
    before = weights(compose)
    slide(compose, "sql", 1.5)  # its answer comes while another tab is open
    compose.get_by_role("tab", name="Explore").click()
    compose.wait_for_timeout(6000)
    compose.get_by_role("tab", name="Compose").click()
    compose.wait_for_selector("#compose-workbench .previewing")
    after = weights(compose)
    assert after != before
    slide(compose, "sql", 2)
    assert weights(compose) == before
    slide(compose, "sql", 1)
    previewed(compose)
    assert compose.locator(".previewing").count() == 0


def test_a_slider_that_outruns_the_studio_ends_where_it_stands(compose, studio, monkeypatch):
    generate(compose, "one two")
    answer, asked, all_asked = studio.preview, [], Event()

    def slowly(trace, plan):
        asked.append(plan)
        assert all_asked.wait(PATIENCE)
        return answer(trace, plan)

    monkeypatch.setattr(studio, "preview", slowly)
    for step in range(1, 21):
        slide(compose, "sql", 1 + step / 20)
    all_asked.set()
    wanted = RoutingPlan([Override.boost({"sql": 2})])
    tokens = [*words(compose)]
    made = answer(studio._written(studio.trace("one two"), tokens, None), wanted)
    np.testing.assert_allclose(weights(compose), made.mean((0, 1)), atol=0.008)
    assert asked[-1] == wanted
    assert len(asked) < 20, "what was overtaken is not asked about"


def test_where_there_can_be_no_preview_it_says_why(compose, studio, monkeypatch):
    generate(compose, "one two")
    own = weights(compose)
    notices = compose.locator("#compose-workbench .notices")

    def refused(why):
        notices.get_by_text(why).wait_for()
        assert "No preview of the plan" in notices.inner_text()
        assert compose.locator(".previewing").count() == 0
        np.testing.assert_allclose(
            weights(compose), own, atol=0.006, err_msg="not those of the run"
        )

    monkeypatch.setattr(studio, "router", RouterSettings(top_k=1))
    slide(compose, "sql", 2)
    refused("made with another router")
    monkeypatch.undo()
    slide(compose, "sql", 1.9)
    compose.wait_for_selector("#compose-workbench .previewing")
    assert "No preview" not in notices.inner_text()
    monkeypatch.setattr(TraceStore, "get", lambda *_: None)
    slide(compose, "sql", 1.8)
    refused("let go of this text")
    monkeypatch.undo()
    use_plan(compose, RoutingPlan([Override.solo("french")]))
    compose.wait_for_selector("#compose-workbench .previewing")
    compose.fill(".entry [aria-label=Layers]", "x")
    refused("Override 1")


def test_bars_mark_what_the_router_alone_would_give(compose):
    generate(compose, "one two")
    own = weights(compose)
    assert compose.locator(".with-own").count() == 0
    for bank in ("preview", "run"):
        if bank == "preview":
            compose.click("#composer [aria-label='Solo french']")
        else:
            generate(compose)
        assert weights(compose) == [0, 1, 0, 0, 0, 0, 0, 0]
        titles = compose.locator(".with-own .bar:not(.head)").evaluate_all(
            "rows => rows.map((row) => row.title)"
        )
        said = [float(title.split("alone: ")[1]) for title in titles]
        np.testing.assert_allclose(said, own, atol=0.011)


def test_a_payload_holds_the_routers_own_weights_beside_the_overridden_ones():
    trace = make_trace(["a", "b"], layers=3, experts=("x", "y", "z"))
    assert trace_payload(trace, key="")["own"] is None
    overridden = np.zeros((2, 3, 3), dtype=bool)
    overridden[1, 2] = True
    weights = np.where(overridden, np.float32(0), trace.routing_weights)
    payload = trace_payload(replace(trace, routing_weights=weights, overridden=overridden), key="")
    assert payload["own"] == trace_payload(trace, key="")["weights"]
    assert payload["overridden"] is not None
    bits = np.unpackbits(np.frombuffer(b64decode(payload["overridden"]), np.uint8))[:6]
    assert bits.tolist() == [0, 0, 0, 0, 0, 1]


def test_a_payload_shows_what_a_sparse_router_itself_chose():
    trace = make_trace(["a"], layers=1, experts=("x", "y", "z"))
    cells = np.array([[[0.88, 0.1, 0.02]], [[1, 0, 0]], [[0, 0, 1]]], np.float32)[:, None]
    probs, own, weights = cells
    trace = replace(
        trace, router_probs=probs, router_weights=own, routing_weights=weights,
        overridden=weights != own,
    )  # fmt: skip
    payload = trace_payload(trace, key="")
    assert list(b64decode(payload["own"])) == [255, 0, 0]
    assert list(b64decode(payload["weights"])) == [0, 0, 255]


def test_a_run_that_nobody_looks_at_ends(monkeypatch):
    now = 100.0
    monkeypatch.setattr(runs_module, "time", SimpleNamespace(monotonic=lambda: now))
    book = RunBook(patience=90)
    with book.running("ann") as (key, stop):
        assert not book.is_forgotten("ann", key)
        now += 91
        assert book.is_forgotten("ann", key)
        book.see("bob", key)
        assert book.is_forgotten("ann", key)
        book.see("ann", key)
        assert not book.is_forgotten("ann", key)
        assert not stop.is_set()


def test_mixer_buttons_make_the_plan_they_say(compose):
    click = compose.click
    click("#composer [aria-label='Solo sql']")
    assert plan_now(compose) == RoutingPlan([Override.solo("sql")])
    click("#composer [aria-label='Solo french']")
    others = ("cooking", "python", "drama", "math", "dialogue", "prose")
    assert plan_now(compose) == RoutingPlan([Override.ban(*others)])
    click("text=reset all")
    click("#composer [aria-label='Mute math']")
    slide(compose, "sql", 1.5)
    both = [Override.boost({"sql": 1.5}), Override.ban("math")]
    assert plan_now(compose) == RoutingPlan(both)
    click("text=reset all")
    click("#composer [data-mode=set]")
    assert not plan_now(compose)
    compose.fill("#composer [aria-label='sql, number']", "0.6")
    compose.fill("#composer [aria-label='french, number']", "0.6")
    assert "sum to 1.20: scaled" in compose.inner_text("#composer .says")
    compose.uncheck("text=Renormalise")
    compose.fill("#composer [aria-label='french, number']", "-9")
    wanted = Override.pin({"sql": 0.6, "french": -1}, renormalise=False)
    assert plan_now(compose) == RoutingPlan([wanted])
    click("#composer [data-mode=add]")
    compose.fill("#composer [aria-label='prose, number']", "12")
    assert plan_now(compose) == RoutingPlan([Override.bias({"prose": 12})])
    click("text=Bypass all")
    assert plan_now(compose) == RoutingPlan([Override.bypass()])
    click("text=Bypass all")
    click("#composer [data-mode=set]")
    assert plan_now(compose) == RoutingPlan([wanted]), "each mode keeps its numbers"


def test_overrides_are_scoped_ordered_switched_copied_and_deleted(compose):
    compose.click("#composer [aria-label='Solo sql']")
    compose.click("text=Add the mixer as an override")
    entry = compose.locator(".entry")
    entry.nth(0).get_by_label("Layers").fill("10-")
    entry.nth(0).get_by_label("Tokens").select_option("generated")
    solo = Override.solo("sql", layers=Span(start=10), tokens="generated")
    assert plan_now(compose) == RoutingPlan([solo])
    compose.click("text=New override")
    entry.nth(1).get_by_label("Operation").select_option("boost")
    entry.nth(1).get_by_label("french").fill("3")
    entry.nth(1).get_by_label("sql").fill("")
    entry.nth(1).get_by_label("Tokens").select_option("positions")
    assert "expected numbers" in entry.nth(1).inner_text()
    entry.nth(1).get_by_label("Positions").fill("2, 4-5")
    entry.nth(1).get_by_label("Strength").fill("0.5")
    boost = Override.boost({"french": 3}, tokens=[2, 4, 5], strength=0.5)
    assert plan_now(compose) == RoutingPlan([solo, boost])
    entry.nth(1).get_by_label("Move up").click()
    assert plan_now(compose) == RoutingPlan([boost, solo])
    entry.nth(0).get_by_label("Duplicate").click()
    entry.nth(0).get_by_label("On", exact=True).uncheck()
    entry.nth(2).get_by_label("Delete").click()
    assert plan_now(compose) == RoutingPlan([boost])
    assert entry.nth(0).locator(".number").inner_text() == "off"


def test_what_cannot_be_read_is_said_before_the_model_runs(compose, studio):
    compose.click("text=New override")
    compose.get_by_label("Layers").fill("ten")
    runs = len(studio.plans)
    generate(compose, "one two")
    compose.locator("#compose-notice").get_by_text("Override 1: expected numbers").wait_for()
    compose.locator(".entry").get_by_label("Layers").fill("99")
    studio.answer = PlanError("Override 1 (solo) names layer 99; this model has layers 0 to 29.")
    generate(compose)
    compose.locator("#compose-notice").get_by_text("names layer 99").wait_for()
    assert len(studio.plans) == runs
    assert compose.input_value("#compose-prompt textarea") == "one two"
    assert compose.locator(".entry").count() == 1


def test_settings_out_of_range_get_a_sentence(compose):
    compose.get_by_role("button", name="Length, sampling, seed").click()
    compose.uncheck("text=Always the likeliest token")
    compose.wait_for_selector("#compose-settings input:not([disabled])")
    for label, value, sentence in (
        ("New tokens, at most", "0", "1 to 1,024"),
        ("Seed", "-1", "The seed"),
        ("Temperature", "0", "temperature lies above 0"),
    ):
        field = compose.get_by_label(label, exact=True)
        sound = field.input_value()
        for given, said in ((value, sentence), (sound, "")):
            field.fill(given)
            compose.keyboard.press("Tab")
            generate(compose, "one")
            if said:
                compose.locator("#compose-notice").get_by_text(said).wait_for()
            else:
                assert not compose.locator("#compose-notice .panel").count()


def test_an_error_in_the_model_is_a_sentence_and_the_next_run_works(compose, studio):
    studio.answer = ZeroDivisionError("/secret")
    generate(compose, "keep me")
    compose.locator("#compose-notice").get_by_text("incident").wait_for()
    assert "/secret" not in compose.content()
    studio.answer = None
    generate(compose)
    compose.wait_for_selector("#compose-workbench .tok")
    assert compose.input_value("#compose-prompt textarea") == "keep me"
    generate(compose, "  ")
    compose.locator("#compose-notice").get_by_text("Nothing to begin with").wait_for()


def test_a_plan_goes_out_and_in_as_json(compose):
    imported(compose, PLAN)
    assert plan_now(compose) == PLAN
    texts = [
        compose.locator(".entry").nth(place).get_by_label("Layers").input_value()
        for place in (0, 1)
    ]
    assert texts == ["10-", "0, 2-3"]


def test_json_that_is_no_plan_gets_its_sentence_and_changes_nothing(compose):
    compose.click("text=New override")
    compose.get_by_role("button", name="Plan as JSON").click()
    unknown = {"operation": "solo", "weights": {"sqll": 1}}
    for text, sentence in (
        ("{", "not JSON"),
        ('{"version": 2}', "version 2"),
        (json.dumps({"overrides": [unknown]}), "did you mean"),
        (json.dumps({"overrides": [{"operation": "ban"}]}), "override 1 (ban)"),
    ):
        compose.fill("#plan-text textarea", text)
        compose.get_by_role("button", name="Use this plan").click()
        compose.locator(".panel.problem").get_by_text(sentence).wait_for()
        assert compose.locator(".entry").count() == 1
        assert compose.input_value("#plan-text textarea") == text


def test_the_selection_becomes_the_scope_of_an_override(compose):
    generate(compose, "one two three")
    compose.evaluate("document.querySelectorAll('#compose-workbench .tok')[2].click()")
    compose.fill("#compose-workbench .toolbar input[type=number]", "12")
    compose.get_by_role("button", name="Override selection").click()
    assert plan_now(compose) == RoutingPlan([Override.solo("sql", tokens=[2], layers=[12])])
    compose.wait_for_selector("#compose-workbench .tok.overridden")
    assert compose.locator("#compose-workbench .tok.overridden").all_inner_texts() == ["two"]


def test_presets_are_saved_loaded_and_deleted(compose):
    slide(compose, "sql", 2)
    compose.fill("[aria-label='Name of a new preset']", "more sql")
    compose.keyboard.press("Enter")
    compose.click("text=clear everything")
    assert not plan_now(compose)
    compose.click("[title='Load the preset']")
    assert plan_now(compose) == RoutingPlan([Override.boost({"sql": 2})])
    compose.click("[title='Delete the preset']")
    assert compose.locator("[aria-label=Preset]").is_disabled()


def imported(page, plan):
    page.get_by_role("button", name="Plan as JSON").click()
    page.fill("#plan-text textarea", plan.to_json())
    page.get_by_role("button", name="Use this plan").click()
    page.wait_for_function(
        "n => document.querySelectorAll('.entry').length === n", arg=len(plan.overrides)
    )


CHANGES = {
    "a slider": lambda page: slide(page, "sql", 2),
    "a mute": lambda page: page.click("#composer [aria-label='Mute sql']"),
    "another mode": lambda page: page.click("#composer [data-mode=set]"),
    "bypass": lambda page: page.get_by_role("button", name="Bypass all").click(),
    "reset": lambda page: page.click("text=reset all"),
    "a preset": lambda page: page.click("[title='Load the preset']"),
    "an override": lambda page: page.click("text=New override"),
    "a scope": lambda page: page.select_option(".entry [aria-label=Tokens]", "prompt"),
    "a field": lambda page: page.fill(".entry [aria-label=Layers]", "3-5"),
    "an imported plan": lambda page: imported(page, PLAN),
    "clear": lambda page: page.click("text=clear everything"),
}


def held(page):
    """All that the composer holds, also what is not applied."""
    kept = page.evaluate("JSON.parse(localStorage.getItem('lmoe-studio-plans')).at(-1)")
    return kept["mixer"], kept["entries"], page.evaluate("window.lmoePlan.overrides")


def test_every_change_in_the_composer_can_be_taken_back_and_done_again(compose):
    slide(compose, "french", 0.5)
    compose.fill("[aria-label='Name of a new preset']", "less french")
    compose.keyboard.press("Enter")
    states = [held(compose)]
    for change in CHANGES.values():
        change(compose)
        states.append(held(compose))
        assert states[-1] != states[-2]
    undo, redo = (compose.get_by_role("button", name=name, exact=True) for name in ("Undo", "Redo"))
    for number, state in enumerate(reversed(states[:-1])):
        undo.click() if number % 2 else compose.keyboard.press("Control+z")
        assert held(compose) == state
    for number, state in enumerate(states[1:]):
        redo.click() if number % 2 else compose.keyboard.press("Control+Shift+Z")
        assert held(compose) == state
    assert redo.is_disabled()
    compose.keyboard.press("Control+z")
    slide(compose, "sql", 0.3)  # another way on
    assert redo.is_disabled()


def test_one_go_of_a_control_is_one_step_and_text_boxes_keep_their_own_undo(compose):
    compose.click("text=New override")
    layers = compose.locator(".entry [aria-label=Layers]")
    layers.press_sequentially("12-14")
    layers.press("Control+z")
    assert layers.input_value() == ""
    assert layers.evaluate("field => field === document.activeElement")
    layers.press("Control+y")
    assert layers.input_value() == "12-14"
    sliders = compose.locator("#composer .row input[type=range]")
    for _ in range(3):
        sliders.first.evaluate(
            "s => { s.value = 0.5 + s.value / 2; s.dispatchEvent(new Event('input', {bubbles: true})) }"
        )
    sliders.first.dispatch_event("change")
    sliders.first.press("Control+z")
    assert sliders.first.input_value() == "1"
    compose.fill("#compose-prompt textarea", "one")
    compose.locator("#compose-prompt textarea").press_sequentially(" two")
    compose.keyboard.press("Control+z")
    assert compose.locator(".entry").count() == 1
    name = compose.get_by_label("Name of a new preset")
    name.press_sequentially("ab")
    name.press("Control+z")
    assert compose.locator(".entry").count() == 1


def test_a_reload_keeps_prompt_plan_and_text(compose):
    compose.click("#composer [aria-label='Solo french']")
    with keeping(compose, "beginning", "written"):
        generate(compose, "one two")
    text = words(compose)
    slide(compose, "sql", 0.5)
    compose.reload()
    opened(compose)
    compose.wait_for_selector("#compose-workbench .tok")
    assert words(compose) == text
    assert compose.input_value("#compose-prompt textarea") == "one two"
    assert plan_now(compose) == RoutingPlan([Override.solo("french")])
    assert compose.locator(".previewing").count() == 0, "the solo makes the slider moot"


def test_a_kept_plan_of_no_use_is_left_aside(compose):
    for kept in (
        "{",
        "null",
        '{"bank": "demo"}',
        '[{"bank": "demo", "entries": 3, "mixer": {"mode": "warp", "values": 7}}]',
        '[{"bank": "demo", "entries": [{"override": {"operation": "ban", "weights": null}, "layers": ""}]}]',
    ):
        compose.evaluate("kept => localStorage.setItem('lmoe-studio-plans', kept)", kept)
        compose.reload()
        opened(compose)
        assert not plan_now(compose)
        slide(compose, "sql", 1.5)
        assert plan_now(compose) == RoutingPlan([Override.boost({"sql": 1.5})])


def test_the_blend_is_downloaded_or_refused_with_the_reason(compose, tmp_path):
    compose.click("#composer [aria-label='Solo french']")
    with compose.expect_download() as download:
        compose.click("#save-adapter")
    download.value.save_as(tmp_path / "adapter.zip")
    assert zipfile.ZipFile(tmp_path / "adapter.zip").namelist()
    compose.locator("#save-notice").get_by_text("at most 1.2e-06").wait_for()
    compose.click("text=Add the mixer as an override")
    compose.locator(".entry select[aria-label=Tokens]").select_option("prompt")
    compose.click("#save-adapter")
    refusal = compose.locator("#save-notice .panel.problem")
    refusal.get_by_text("some tokens only").wait_for()
    button, said = compose.locator("#save-adapter").bounding_box(), refusal.bounding_box()
    assert 0 < said["y"] - button["y"] < 100, "beside its button"


def test_hostile_text_and_names_run_nothing(compose):
    generate(compose, " ".join(HOSTILE))
    compose.get_by_role("button", name="Plan as JSON").click()
    for text in HOSTILE:
        override = {"operation": "bypass", "tokens": {"text": text}}
        compose.fill("#plan-text textarea", json.dumps({"overrides": [override]}))
        compose.get_by_role("button", name="Use this plan").click()
        compose.wait_for_function(
            "text => document.querySelector('.entry input.wide')?.value === text", arg=text
        )
    assert compose.evaluate("window.hit") is None
    assert compose.locator("#composer :is(img, svg, script, b)").count() == 0


@pytest.mark.slow
def test_a_long_text_follows_a_slider(compose, figures):
    generate(compose, "word " * 446)
    count = len(words(compose))
    times = compose.evaluate(MEASURE, 40)  # each ends once its own preview is there
    p50, p95 = np.percentile(times, [50, 95])
    figures(
        f"mixer slider, {count} tokens × 30 layers × 8 experts", f"p50 {p50:.0f}, p95 {p95:.0f} ms"
    )
    assert compose.locator("#compose-workbench .previewing").count() == 1


def test_the_texts_of_two_visitors_grow_side_by_side(compose, browser, url, studio):
    other = browser.new_page()
    other.set_default_timeout(1000 * PATIENCE)
    other.goto(url)
    other.wait_for_selector("#run:not([disabled])")
    opened(other)
    with one_run(compose), one_run(other), studio.held():
        for visitor in (compose, other):
            visitor.fill("#compose-prompt textarea", "one two")
            visitor.click("#generate")
        for visitor in (other, compose):  # the second need not wait for the first to end
            visitor.wait_for_selector(".growing .tok")
        assert compose.locator("#generate[disabled]").count() == 1
    other.close()
