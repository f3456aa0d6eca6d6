"""The text that the strip shows: lines, signs and parts of characters, without a server."""

import random

import pytest
from fake_studio import make_trace

from lmoe_studio.ui.asset_files import read_asset
from lmoe_studio.ui.payload import trace_payload

# Draws a trace's strip, in a width that wraps nothing, and reads its lines back.
DRAW = """
(payload) => {
  const view = makeView();
  view.load(payload);
  const strip = makeStrip(view, { cursor: () => NONE, pick() {}, point() {} });
  document.querySelector("#box").replaceChildren(strip.node);
  strip.build();
  return strip.node.innerText.replace(/\\n$/, "");
}
"""
# Where each token of a strip stands, as it is cut and in one box a line; and how many tokens a box has.
PLACES = """
() => {
  const strip = document.querySelector(".strip");
  const places = (node) => [...node.querySelectorAll("[data-index]")].map((token) => {
    const { left, top, width, height } = token.getBoundingClientRect();
    return [left, top - node.getBoundingClientRect().top, width, height].map(Math.round);
  });
  const boxes = [...strip.querySelectorAll(".line")];
  const whole = strip.cloneNode(false);
  const line = document.createElement("div");
  for (const box of boxes) line.append(...[...box.childNodes].map((each) => each.cloneNode(true)));
  whole.append(line);
  const cut = places(strip);
  strip.after(whole);
  strip.style.display = "none";
  const asOne = places(whole);
  whole.remove();
  strip.style.display = "";
  return [cut, asOne, boxes.map((box) => box.querySelectorAll("[data-index]").length)];
}
"""
SIGNS = {"\n": "⏎", "\r": "␍", "\t": "⇥", "\u2028": "U+2028"}


@pytest.fixture(scope="module")
def drawn(browser):
    """Gives the text that a person sees for some tokens."""
    page = browser.new_page()
    page.set_content("<div id=box style='white-space: pre-wrap; width: 90000px'></div>")
    page.add_script_tag(
        content=read_asset("particulars.js", "view.js", "tokens.js", "cutlines.js", "strip.js")
    )

    def draw(tokens):
        trace = make_trace(tokens, layers=1, experts=("x", "y"))
        return page.evaluate(DRAW, trace_payload(trace, key=""))

    yield draw
    page.close()


def seen(text):
    """A text as it should look: a sign before each break, and everything else as it is."""
    shown = ""
    for here, after in zip(text, [*text[1:], ""], strict=True):
        shown += SIGNS.get(here, here)
        if here in "\n\u2028" or (here == "\r" and after != "\n"):
            shown += "\n"
    return shown.removesuffix("\n")


CODE = "def f(x):\n    if x:\n\n\treturn 1\r\n\r\n  # end\n\n\n"


@pytest.mark.parametrize(
    "tokens",
    [
        ["def f(x):", "\n   ", " if x:", "\n       ", " return 1"],
        ["a", "\n\n   ", " b", "\n", "\n\n", "c"],
        ["a\nb\n\n  c", "  ", "\n"],
        ["\n", "\n\t\t", "x", "\n "],
        ["one\r\n", "  two", "\r", "\n   ", "three\r", "four"],
        ["a\u2028", " b"],
        [" \n ", " \n", "  x"],
        list(CODE),
        [CODE],
    ],
)
def test_every_break_and_all_indentation_is_seen_where_it_is(drawn, tokens):
    assert drawn(tokens) == seen("".join(tokens))


def test_however_a_text_is_cut_into_tokens_it_looks_the_same(drawn):
    chance = random.Random(4)
    for _ in range(60):
        text = "a" + "".join(chance.choices("ab  \n\n\r\t\u2028", k=40))
        cuts = sorted(chance.sample(range(1, len(text)), 12))
        tokens = [
            text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)
        ]
        assert drawn(tokens) == seen(text), tokens


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        (["a", "�", "é", "�", "�", "日本"], "aé…é日…日…日本"),
        (["�", "�", "�", "🎉"], "🎉…🎉…🎉…🎉"),
        (["�", "�", "é"], "�é…é"),  # two bytes are all that it has: the first is no part of it
        (["�", "a", "�"], "�a�"),
        (["�", "\u200d"], "U+200D…U+200D"),
    ],
)
def test_a_part_of_a_character_shows_which_one(drawn, tokens, shown):
    assert drawn(tokens) == shown


@pytest.mark.parametrize(
    "tokens",
    [
        [" token"] * 900,
        [" " + "a" * (1 + index % 7) for index in range(900)],
        [" a", "bc", "def", ",", " ", "  ", "g"] * 130,
        ["x" * (1 + index % 5) for index in range(900)],  # one word without end
    ],
)
def test_a_long_line_is_cut_where_it_wraps_at_any_width_and_looks_the_same(browser, tokens):
    page = browser.new_page()
    page.set_content(
        "<div id=box style='white-space: pre-wrap; overflow-wrap: anywhere; width: 700px; "
        "font: 14px/31px monospace'></div>"
    )
    page.add_script_tag(
        content=read_asset("particulars.js", "view.js", "tokens.js", "cutlines.js", "strip.js")
    )
    page.evaluate(DRAW, trace_payload(make_trace(tokens, layers=1, experts=("x", "y")), key=""))
    for width in (700, 431, 1000):
        page.eval_on_selector("#box", "(box, width) => (box.style.width = `${width}px`)", width)
        page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))"
        )
        cut, as_one, counts = page.evaluate(PLACES)
        assert cut == as_one
        assert sum(counts) == len(tokens)
        assert max(counts) <= len(tokens) / 3
    page.close()
