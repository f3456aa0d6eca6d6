"""The workbench in a browser: what it shows, how it is driven, and how fast it answers."""

from dataclasses import replace

import numpy as np
import pytest
from fake_studio import make_trace

WORDS = [f" word{index}" for index in range(511)]

HOSTILE = [
    "<img src=x onerror=window.hit=1>",
    "<script>window.hit=1</script>",
    "</span><b>bold</b>",
    '"><svg onload=window.hit=1>',
    "${window.hit=1}",
    "{{value}}",
    "{{#each value}}",
    "`",
    "${",
    "\\x41\\n",
    "javascript:window.hit=1",
    "<!--",
    "&lt;&amp;",
    "'\"",
]
INVISIBLE = {
    "a\u202eb": "aU+202Eb",
    "\u2066x\u2069": "U+2066xU+2069",
    "\u200b": "U+200B",
    "\u200d": "U+200D",
    "\0": "␀",
    "\x1b[31m": "␛[31m",
    "\t": "⇥",
    "\r": "␍",
    "\ufeff": "U+FEFF",
    "\ufffd": "�",
    "a\ud800": "a�",
    "\u2028": "U+2028",
    "\U000e0041": "U+E0041",
    "": "∅",
    "👩\u200d🔬": "👩\u200d🔬",
    "❤\ufe0f": "❤\ufe0f",
    "e\u0301": "e\u0301",
    "שלום": "שלום",
    "\n": "⏎",
    "a\nb\n\n": "a⏎b⏎⏎",
}


# A token with text after a line break has an element for each line.
TEXT_BY_TOKEN = """
() => {
  const texts = [];
  for (const span of document.querySelectorAll(".strip [data-index]")) {
    texts[span.dataset.index] = (texts[span.dataset.index] ?? "") + span.textContent;
  }
  return texts;
}
"""


def selected(page):
    return page.eval_on_selector_all(
        ".tok.selected", "all => all.map(t => Number(t.dataset.index))"
    )


def spoken(page, text):
    page.wait_for_function(
        "text => document.querySelector('.live').textContent.includes(text)", arg=text
    )


def test_a_trace_is_shown_after_pressing_the_button(page):
    page.fill("#prompt textarea", "SELECT name\nFROM users")
    page.click("#run")
    page.wait_for_selector(".tok")
    assert page.locator(".tok").count() == 6
    assert page.locator(".tok.special").count() == 1
    assert page.locator(".chip").count() == 8
    assert page.locator(".bar").count() == 9
    assert "Traced 6 tokens" in page.inner_text("#status")
    assert page.eval_on_selector("canvas", "c => [c.width, c.height]") == [6, 30]
    # A break stands outside the token that makes it; a leading space before it.
    assert page.locator(".strip > .line").count() == 2
    assert page.locator(".tok").nth(2).inner_text() == "name"


def test_hostile_text_is_shown_as_it_is_and_nothing_runs(show):
    tokens = ["start", *HOSTILE, "end"]
    trace = make_trace(
        tokens, layers=3, experts=("<img src=x onerror=window.hit=1>", "${window.hit=1}")
    )
    rows = tuple((text, text, text, text, text) for text in tokens)
    page = show(replace(trace, alternative_tokens=rows))
    assert page.locator(".tok").all_text_contents() == tokens
    for index in range(len(tokens)):
        page.evaluate("i => document.querySelectorAll('.tok')[i].click()", index)
    page.hover(".tok >> nth=1", position={"x": 3, "y": 8})
    page.wait_for_selector(".tooltip:not([hidden])")
    spoken(page, "end")
    assert page.evaluate("window.hit") is None
    assert page.locator("#workbench :is(img, svg, script, b)").count() == 0
    assert page.locator("#workbench .ranking .word").first.text_content() == "end"


def test_what_cannot_be_seen_gets_a_sign(show):
    page = show(make_trace(["start", *INVISIBLE], layers=2))
    shown = page.evaluate(TEXT_BY_TOKEN)
    assert shown == ["start", *INVISIBLE.values()]
    isolation = page.eval_on_selector_all(
        ".tok", "all => all.map(t => getComputedStyle(t).unicodeBidi)"
    )
    assert set(isolation) == {"isolate"}


def test_a_selection_links_all_views_and_brings_exact_numbers(show):
    trace = make_trace(["<|im_start|>", " a", " b", " c"], layers=6, contributions=True)
    page = show(trace)
    page.locator(".tok").nth(2).click(position={"x": 3, "y": 8})
    page.fill(".toolbar input[type=number]", "4")
    values = [f"{weight:.4f}" for weight in trace.routing_weights[2, 4]]
    page.wait_for_function(
        "wanted => [...document.querySelectorAll('.bar:not(.head) .value')].map(v => v.textContent).join() === wanted",
        arg=",".join(values),
    )
    assert "token 2 · layer 4 · id 2" in page.inner_text(".place")
    assert page.locator(".bar .norm").nth(1).inner_text() == f"{trace.contributions[2, 4, 0]:.3f}"
    assert page.locator(".ranking li").count() == 5
    assert page.locator(".cross.column").is_visible()
    assert page.locator(".cross.row").is_visible()
    assert page.input_value(".toolbar input[type=range] >> nth=0") == "4"


def test_a_click_on_the_letter_above_a_token_selects_it(show):
    page = show(make_trace(["a", " b\n  ", " c", " d"], layers=6))
    for index in range(4):
        box = page.locator(".tok").nth(index).bounding_box()
        page.mouse.click(box["x"] + 3, box["y"] - 5)
        assert selected(page)[0] == index


def test_a_click_on_the_heatmap_selects_token_and_layer(show):
    page = show(make_trace(["a", " b", " c", " d"], layers=6))
    box = page.locator(".stage canvas").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 2.5 / 4, box["y"] + box["height"] * 0.5 / 6)
    assert selected(page) == [2]
    assert "token 2 · layer 5" in page.inner_text(".place")


def test_dragging_over_tokens_selects_a_range(show):
    page = show(make_trace(["aaaa", " bbbb", " cccc", " dddd"], layers=6))
    first, last = (page.locator(".tok").nth(index).bounding_box() for index in (0, 2))
    page.mouse.move(first["x"] + 3, first["y"] + 8)
    page.mouse.down()
    page.mouse.move(last["x"] + 5, last["y"] + 8, steps=8)
    page.mouse.up()
    assert selected(page) == [0, 1, 2]
    assert "mean of 3" in page.inner_text(".place")


def test_everything_can_be_reached_by_keyboard(show):
    page = show(make_trace([f" w{index}" for index in range(60)], layers=6))
    page.focus(".strip")
    press = page.keyboard.press
    press("ArrowRight")
    assert selected(page) == [0]
    press("ArrowRight")
    press("Shift+ArrowRight")
    press("Shift+ArrowRight")
    assert selected(page) == [1, 2, 3]
    press("PageDown")
    assert selected(page) == [23]
    press("PageUp")
    assert selected(page) == [3]
    press("End")
    assert selected(page) == [59]
    press("ArrowRight")
    assert selected(page) == [59]
    press("Home")
    press("ArrowUp")
    press("ArrowUp")
    spoken(page, "token 0 '␣w0', layer 1,")
    for _ in range(3):
        press("ArrowDown")
    spoken(page, "all layers")
    press("3")
    assert page.get_attribute(".chip >> nth=2", "aria-pressed") == "true"
    press("3")
    assert page.locator(".chip[aria-pressed=true]").count() == 0
    press("2")
    press("0")
    assert page.locator(".chip[aria-pressed=true]").count() == 0
    active = page.get_attribute(".strip", "aria-activedescendant")
    assert page.get_attribute(f"#{active}", "aria-selected") == "true"
    press("Escape")
    assert selected(page) == []
    assert page.inner_text(".detail .title") == "Whole text"
    # Tab leaves the list: it is one stop, however many tokens it has.
    press("Tab")
    assert page.evaluate("document.activeElement.closest('.tok')") is None


def test_the_legend_singles_experts_out_of_the_view(show):
    page = show(make_trace(WORDS[:40], layers=6))
    chips = page.locator(".chip")
    chips.nth(1).click()
    chips.nth(4).click(modifiers=["Shift"])
    page.mouse.move(0, 0)
    glyphs = page.eval_on_selector_all(".tok[data-glyph]", "all => all.map(t => t.dataset.glyph)")
    assert set(glyphs) <= {"B", "E"}
    assert page.locator(".chip.dim").count() == 6
    page.get_by_role("button", name="show all").click()
    assert page.locator(".chip.dim").count() == 0
    chips.nth(0).hover()
    assert page.locator(".chip.dim").count() == 7


def test_colours_can_speak_of_one_expert_or_of_entropy(show):
    page = show(make_trace(WORDS[:40], layers=6))

    def pixels():
        return page.eval_on_selector(".stage canvas", "c => c.toDataURL()")

    seen = {pixels()}
    for choice in ("entropy", "2", "3"):
        page.select_option(".toolbar select", choice)
        seen.add(pixels())
    assert len(seen) == 4
    page.select_option(".toolbar select", "entropy")
    assert page.locator(".tok[data-glyph]").count() == 0
    page.select_option(".toolbar select", "dominant")
    page.get_by_role("button", name="Letters").click()
    assert page.locator(".tok[data-glyph]").count() == 0


def test_dark_mode_repaints_and_stays_readable(open_page, url, studio):
    studio.answer = make_trace(WORDS[:40], layers=6)
    page = open_page(f"{url}/?__theme=dark")
    page.fill("#prompt textarea", "x")
    page.click("#run")
    page.wait_for_selector(".tok")
    dark = page.eval_on_selector(".stage canvas", "c => c.toDataURL()")
    brightness = (
        "n => getComputedStyle(n).color.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    )
    assert page.eval_on_selector(".tok:not(.special)", brightness) > 600
    for control in ("select", "input[type=number]"):
        background = brightness.replace("color", "backgroundColor")
        assert page.eval_on_selector(f".toolbar {control}", background) < 150
    page.evaluate("document.body.classList.remove('dark')")
    page.wait_for_function(
        "was => document.querySelector('.stage canvas').toDataURL() !== was", arg=dark
    )
    assert page.eval_on_selector(".tok:not(.special)", brightness) < 200


def test_uniform_routing_is_said_to_be_so(show):
    trace = make_trace(["a", " b"], layers=2)
    even = np.full(trace.routing_weights.shape, 1 / 8, dtype=np.float32)
    page = show(replace(trace, routing_weights=even))
    assert "close to uniform" in page.inner_text(".notices")


def test_one_expert_is_said_to_leave_nothing_to_choose(show):
    page = show(make_trace(["a", " b"], layers=2, experts=("only",)))
    assert "one expert" in page.inner_text(".notices")


def test_many_experts_keep_letters_of_their_own(show):
    page = show(make_trace(["a", " b"], layers=2, experts=[f"expert-{i}" for i in range(30)]))
    letters = page.locator(".chip .glyph").all_inner_texts()
    assert len(set(letters)) == 30
    assert letters[-1] == "AD"


TIMES = """
async ([acts, count]) => {
  const shown = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const tokens = [...document.querySelectorAll('.tok')];
  const slider = document.querySelector('.toolbar input[type=range]');
  const act = {
    select: (i) => tokens[(i * 37) % tokens.length].click(),
    layer: (i) => {
      slider.value = (i * 7) % 30;
      slider.dispatchEvent(new Event('input', { bubbles: true }));
    },
  }[acts];
  const times = [];
  for (let i = 1; i <= count; i++) {
    await shown();
    const start = performance.now();
    act(i);
    await shown();
    times.push(performance.now() - start);
  }
  return times;
}
"""


@pytest.mark.slow
@pytest.mark.release  # how quick it is hangs on what else runs
@pytest.mark.parametrize(("tokens", "limit", "times"), [(512, 100, 40), (4096, 250, 15)])
def test_selecting_and_changing_the_layer_answer_at_once(show, figures, tokens, limit, times):
    words = [" token" if index % 12 else "\n   " for index in range(tokens)]
    page = show(make_trace(words))
    for act in ("select", "layer"):
        p95 = np.inf
        for _ in range(4):  # machines are shared, so the first calm round counts
            p95 = np.percentile(page.evaluate(TIMES, [act, times]), 95)
            if p95 <= limit:
                break
        figures(f"{act}, {tokens} tokens × 30 layers × 8 experts", f"p95 {p95:.0f} ms")
        assert p95 <= 3 * limit  # the limit is for an idle machine; the figure is printed


def test_a_trace_longer_than_the_workbench_shows_says_so(show):
    page = show(make_trace([" a"] * 4100, layers=2, experts=("x", "y")))
    assert "first 4,096 of 4,100 tokens" in page.inner_text(".notices")
    assert page.locator(".tok").count() == 4096


def test_no_view_is_cut_off_by_the_styles_of_the_page(show):
    page = show(make_trace(WORDS[:60]))
    for view in (".frame", ".main", ".plot", ".detail"):
        cut = f"{{ const e = document.querySelector('{view}'); return e.scrollHeight - e.offsetHeight }}"
        assert page.evaluate(f"() => {cut}") <= 2, view
