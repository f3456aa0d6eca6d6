"""What the workbench says of a selection: entropies in nats, perplexity, and every mark in words."""

import numpy as np
import pytest
from fake_studio import make_trace

from analysis import token_frame

TOKENS = ["<|im_start|>", " a", " b", ",", ";", " c"]


def facts(page):
    return dict(
        page.eval_on_selector_all(
            ".detail .facts > div", "all => all.map(e => [...e.children].map(c => c.textContent))"
        )
    )


def select(page, low, high):
    tokens = page.locator(".tok")
    tokens.nth(low).click(position={"x": 3, "y": 8})
    tokens.nth(high).click(position={"x": 3, "y": 8}, modifiers=["Shift"])


def test_the_entropy_of_the_routing_is_in_nats_and_that_of_the_export_wherever_it_stands(show):
    trace = make_trace(TOKENS, layers=6, contributions=True)
    exported = token_frame(trace)["routing_entropy"]
    page = show(trace)

    def is_near(text, value):
        number, unit = text.split(" ")[0], text.split(" ")[-1]
        return unit == "nats" and float(number) == pytest.approx(value, abs=0.02)

    assert is_near(facts(page)["routing entropy"], exported.mean())
    page.select_option(".toolbar select", "entropy")
    assert page.inner_text(".caption .end >> nth=1") == f"{np.log(8):.2f} nats"
    for token in (2, 5):
        page.locator(".tok").nth(token).click(position={"x": 3, "y": 8})
        assert is_near(facts(page)["routing entropy"], exported[token])
        page.mouse.move(0, 0)
        page.locator(".tok").nth(token).hover(position={"x": 3, "y": 8})
        page.wait_for_selector(".tooltip:not([hidden])")
        said = page.inner_text(".tooltip .entropy .value")
        assert is_near(said, exported[token])
        assert f"of {np.log(8):.2f}" in said
    assert facts(page)["next-token entropy"] == f"{trace.entropies[5]:.2f} nats"
    select(page, 1, 4)
    assert is_near(facts(page)["routing entropy"], exported[1:5].mean())


def test_a_span_says_its_mean_log_probability_and_perplexity(show):
    trace = make_trace(TOKENS, layers=2)
    page = show(trace)
    for low, high, known in ((1, 4, slice(1, 5)), (0, 2, slice(1, 3))):  # the first has none
        select(page, low, high)
        mean = float(np.mean(np.round(trace.logprobs[known].astype(float), 3)))
        said = facts(page)
        assert said["mean log-prob"] == f"{mean:.2f} nats"
        assert float(said["perplexity"]) == pytest.approx(np.exp(-mean), rel=0.01)
    page.keyboard.press("Escape")
    page.wait_for_function("document.querySelector('.detail .title').textContent === 'Whole text'")
    assert "perplexity" in facts(page)


def test_columns_marks_and_legend_are_explained_in_words_that_can_be_seen(show):
    page = show(make_trace(TOKENS, layers=2, contributions=True))
    key = page.locator(".detail .key")
    assert key.is_visible()
    for word in ("Weight:", "Update:", "Line in a bar: an even share, 1/8"):
        assert word in key.inner_text()
    assert "the model stays as it is" in page.inner_text(".legend .hint")
    assert "What it was trained on." in page.inner_text("#bank")


@pytest.mark.parametrize("colour", ["dominant", "entropy", "3"])
def test_the_crosshair_has_a_light_and_a_dark_line(show, colour):
    page = show(make_trace(TOKENS, layers=6))
    page.select_option(".toolbar select", colour)
    page.fill(".toolbar input[type=number]", "3")
    select(page, 1, 3)
    for cross in (".cross.row", ".cross.column"):
        line, other = page.eval_on_selector(
            cross,
            """node => { const style = getComputedStyle(node);
               const border = node.matches('.row') ? style.borderTopColor : style.borderLeftColor;
               return [border, style.outlineColor].map(
                 colour => colour.match(/[\\d.]+/g).slice(0, 3).reduce((sum, x) => sum + +x, 0)); }""",
        )
        assert abs(line - other) > 500, cross


@pytest.mark.parametrize("experts", [8, 40])
def test_letters_over_short_tokens_do_not_run_together(show, experts):
    names = [f"e{number}" for number in range(experts)]
    page = show(make_trace(["(", "a", "<", "b", ")", "{", "}", ";"] * 4, layers=2, experts=names))
    page.wait_for_selector(".tok[data-glyph]")
    widths = page.eval_on_selector_all(
        ".tok[data-glyph]",
        """all => all.map(token => [
             parseFloat(getComputedStyle(token, '::before').width), token.getBoundingClientRect().width])""",
    )
    assert widths
    for letter, token in widths:
        assert token - letter >= 2


def test_a_part_of_a_character_is_called_one_where_it_stands_alone(show):
    page = show(make_trace(["a", "\ufffd", "é", "\ufffd"], layers=2))
    page.locator(".tok").nth(3).click(position={"x": 3, "y": 8})
    assert page.inner_text(".detail .title") == "� part of a character"
    assert "token 3, part of a character" in page.inner_text(".place")
    page.locator(".tok").nth(1).click(position={"x": 3, "y": 8})
    assert "token 1, part of 'é'" in page.inner_text(".place")
