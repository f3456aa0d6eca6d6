"""What is particular to a router: in the payload, and in the page."""

import json
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fake_studio import make_trace
from tiny_models import ROUTERS, make_tiny_studio

from analysis import site_frame
from lmoe_studio.ui.packing import in_steps
from lmoe_studio.ui.payload import exact_cell, trace_payload

TOKENS = ["<|im_start|>", " SELECT", " name", " Bonjour", ","]
TYPES = [{"name": "code"}, {"name": "<b>French</b>"}]


def noted(weights, *, router=None, **notes):
    """A trace of these weights `[token, layer, expert]`."""
    weights = np.asarray(weights, np.float32)
    tokens, layers, experts = weights.shape
    trace = make_trace(TOKENS[:tokens], layers=layers, experts=("x", "y", "z")[:experts])
    changes = dict.fromkeys(("router_weights", "routing_weights", "router_probs"), weights)
    return replace(trace, notes=notes, router=json.dumps(router or {}), **changes)


def thresholded(**router):
    """Five tokens, two layers, three experts; two tokens have none in layer 0, one of them in both."""
    weights = np.full((5, 2, 3), (0.5, 0.25, 0))
    weights[1, 0] = weights[4] = 0
    weights[2, 1] = (0, 0.9, 0)
    settings = {"threshold": {"limit": 0.5, "learned": True}, "options": {"types": TYPES}}
    return noted(
        weights,
        router=settings | router,
        threshold=np.linspace(0.1, 0.46, 10, dtype=np.float32).reshape(5, 2, 1),
        type=np.repeat([[0], [1], [1], [2], [2]], 2, axis=1),
        neighbour=np.arange(20, dtype=np.int32).reshape(5, 2, 2),
        neighbour_distance=np.arange(20, dtype=np.float32).reshape(5, 2, 2) / 4,
        branches=np.zeros((5, 2, 3), np.float32),
    )


def numbers(steps, shape):
    values = np.full(shape, steps["least"])
    if steps["values"]:
        values += steps["step"] * np.frombuffer(b64decode(steps["values"]), "<u2").reshape(shape)
    return values


@pytest.mark.parametrize(
    "values", [[[0.0, 3], [8, 0]], [[-2.5, 1e6]], [[0.3, 0.3]], [[np.nan, 1]], np.zeros((0, 4))]
)
def test_steps_give_back_the_numbers(values):
    values = np.asarray(values, np.float32)
    steps = json.loads(json.dumps(in_steps(values)))
    found, wanted = numbers(steps, values.shape), np.nan_to_num(values)
    np.testing.assert_allclose(found, wanted, atol=np.ptp(wanted) / 131_000 if wanted.size else 0)
    assert ((found == 0) == (wanted == 0)).all()


def test_numbers_of_experts_and_sums_are_those_of_the_site_frame():
    trace = thresholded()
    payload, frame = trace_payload(trace, key="k"), site_frame(trace)
    for name in ("active", "mass"):
        wanted = frame[name].to_numpy().reshape(5, 2)
        np.testing.assert_allclose(numbers(payload["sites"][name], (5, 2)), wanted, atol=1e-4)
    shown = payload["notes"]
    np.testing.assert_allclose(
        numbers(shown["threshold"], (5, 2)), frame["threshold"].to_numpy().reshape(5, 2), atol=1e-5
    )
    assert [look["name"] for look in shown["types"]] == ["other", "code", "<b>French</b>"]
    assert list(b64decode(shown["type"])) == [0, 1, 1, 2, 2]
    assert shown["is_reached"]
    assert not trace_payload(thresholded(top_k=1), key="k")["notes"]["is_reached"]


def test_a_fixed_threshold_is_known_from_the_settings():
    trace = noted([[[0.7, 0]]], router={"threshold": {"limit": 0.25, "learned": False}})
    steps = trace_payload(trace, key="k")["notes"]["threshold"]
    assert (steps["least"], steps["values"]) == (0.25, None)


def test_a_type_that_the_settings_do_not_name_has_its_number():
    shown = trace_payload(noted([[[1.0]]], type=np.array([[2]])), key="k")["notes"]
    assert [look["name"] for look in shown["types"]] == ["other", "type 1", "type 2"]


def test_of_routers_of_modules_the_means_are_shown_and_no_cell_is_noted():
    trace = noted(
        [[[0.5, 0], [0, 0], [1, 1], [1, 1]]],
        threshold=np.array([[[0.1], [0.3], [0.2], [0.2]]]),
        neighbour=np.arange(4).reshape(1, 4, 1),
    )
    modules = replace(trace, site_layers=(0, 0, 1, 1), site_modules=("q", "k", "q", "k"))
    payload = trace_payload(modules, key="k")
    np.testing.assert_allclose(numbers(payload["sites"]["active"], (1, 2)), [[0.5, 2]], atol=1e-4)
    steps = payload["notes"]["threshold"]
    np.testing.assert_allclose(numbers(steps, (1, 2)), [[0.2, 0.2]], atol=1e-6)
    assert exact_cell(modules, key="k", lo=0, hi=0, layer=1)["notes"] == {}


def test_a_cell_has_what_else_was_noted_of_it():
    trace = thresholded()
    trace.notes["nonsense"] = np.full((5, 2, 1), np.nan)
    trace.notes["too many"] = np.zeros((5, 2, 40))
    trace.notes["flag"] = np.ones((5, 2), bool)
    cell = exact_cell(trace, key="k", lo=3, hi=3, layer=1)
    assert cell["notes"] == {"neighbour": [14, 15], "neighbour_distance": [3.5, 3.75], "flag": [1]}
    assert exact_cell(trace, key="k", lo=3, hi=3, layer=-1)["notes"] == {}
    assert exact_cell(trace, key="k", lo=3, hi=4, layer=1)["notes"] == {}


@pytest.mark.parametrize(
    "router", ROUTERS, ids=lambda one: f"{one.kind}-{one.scope}-{one.activation}"
)
def test_what_each_kind_of_router_gives_is_shown(router):
    trace = make_tiny_studio(router=router).trace("select a from b where c")
    payload = json.loads(json.dumps(trace_payload(trace, key="k")))
    cell = json.loads(json.dumps(exact_cell(trace, key="k", lo=1, hi=1, layer=1)))
    is_softmax = router.activation == "softmax" and (router.renormalise or not router.top_k)
    assert ("sites" in payload) == (not is_softmax or router.kind == "tree")
    assert ("notes" in payload) == (router.threshold is not None or router.kind == "typed")
    wanted = {"knn": ["neighbour", "neighbour_distance"], "tree": ["path", "path_weight"]}
    assert sorted(cell["notes"]) == wanted.get(router.kind, [])
    if "sites" in payload:
        mass = trace.by_layer(trace.routing_weights).sum(axis=-1)
        np.testing.assert_allclose(numbers(payload["sites"]["mass"], mass.shape), mass, atol=1e-3)


def test_the_page_says_who_acts_why_and_on_which_tokens_nobody_does(show):
    page = show(thresholded())
    said, silences = page.locator(".detail .said"), page.locator(".silences")
    assert "On average 1.3 of 3 experts act; their weights sum to 0.54." in said.inner_text()
    assert "Types: other 1, code 2, <b>French</b> 2." in said.inner_text()
    assert silences.inner_text() == "2 tokens have no expert in some layer"
    assert page.locator(".marks .type").all_inner_texts() == [
        "other\n1",
        "code\n2",
        "<b>French</b>\n2",
    ]
    assert page.eval_on_selector(".marks canvas", "c => c.width") == 5
    assert page.locator(".chip .share").first.inner_text() == "0.30"  # no share: sums are not 1
    page.fill(".toolbar input[type=number]", "0")
    page.wait_for_selector(".silences:text-is('2 tokens have no expert in layer 0')")
    assert page.locator(".tok.silent").count() == 2
    for token in (1, 4, 1):  # one after the other, and again
        silences.click()
        page.wait_for_selector(f".tok.selected[data-index='{token}']")
        assert (
            "No expert: the base model alone. None reaches this token's threshold"
            in said.inner_text()
        )
    page.locator(".tok").nth(3).click(position={"x": 3, "y": 8})
    wanted = "2 of 3 experts reach this token's threshold 0.34; their weights sum to 0.75."
    assert said.locator("p").all_inner_texts() == [wanted, "Type: <b>French</b>."]
    page.wait_for_selector(
        ".noted:text-is('Nearest examples: 12 (distance 3.00), 13 (distance 3.25).')"
    )
    page.fill(".toolbar input[type=number]", "1")
    page.wait_for_selector(".noted:has-text('14 (distance 3.50)')")
    assert silences.inner_text() == "1 token has no expert in layer 1"
    page.locator(".tok").nth(2).click(position={"x": 3, "y": 8})
    assert (
        "1 of 3 experts reaches this token's threshold 0.30; its weight is 0.90."
        in said.inner_text()
    )
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_timeout(3000)
    page.get_by_role("tab", name="Explore").click()
    assert silences.inner_text() == "1 token has no expert in layer 1"
    page.locator(".marks canvas").click(position={"x": 2, "y": 3})
    page.wait_for_selector(".tok.selected[data-index='0']")


def test_the_router_sites_can_be_saved_where_they_say_something(show):
    trace = thresholded()
    page = show(trace)
    offer = "#exports .offer:has(strong:text-is('Export the router sites'))"
    assert "One row: a token and layer" in page.locator(offer).inner_text()
    with page.expect_download() as download:
        page.locator(f"{offer} [data-format='csv']").click()
    table = pd.read_csv(download.value.path())
    assert table["active"].tolist() == site_frame(trace)["active"].tolist()
    assert table["type"].tolist() == site_frame(trace)["type"].astype(str).tolist()


def test_bars_of_weights_below_0_hang_from_the_zero_line(show):
    weights = np.zeros((2, 2, 3))
    weights[:, 0] = (0.5, -0.25, 1.5)
    page = show(noted(weights))
    page.fill(".toolbar input[type=number]", "0")
    page.locator(".tok").nth(1).click(position={"x": 3, "y": 8})
    exact = "() => [...document.querySelectorAll('.bar:not(.head) .value')].map(v => v.textContent).join()"
    page.wait_for_function(f"({exact})() === '0.5000,-0.2500,1.5000'")
    places = page.eval_on_selector_all(
        ".bar:not(.head) .track",
        """all => all.map(track => {
             const [box, bar] = [track, track.firstChild].map(node => node.getBoundingClientRect());
             return [bar.left, bar.right].map(at => (at - box.left) / box.width); })""",
    )
    zero = 0.25 / 1.75
    wanted = [(zero, 0.75 / 1.75), (0, zero), (zero, 1)]
    np.testing.assert_allclose(places, wanted, atol=0.02)
    assert "3 of 3 experts act; their weights sum to 1.75." in page.inner_text(".detail .said")
    assert "below 0 takes an expert's update away" in page.inner_text(".detail .key")
    assert "an even share" not in page.inner_text(".detail .key")
    assert page.inner_text(".silences:disabled") == "Every token has an expert in layer 0"


def test_the_path_of_a_token_has_the_names_of_its_experts(show):
    path = np.array([[[2, 0], [1, 0]]] * 2)
    page = show(noted(np.ones((2, 2, 3)), path=path, path_weight=np.full((2, 2, 1), 0.625)))
    page.fill(".toolbar input[type=number]", "0")
    page.locator(".tok").nth(1).click(position={"x": 3, "y": 8})
    page.wait_for_selector(".noted:text-is('Heaviest path: C z → A x, 0.63 of the token.')")


def test_of_a_softmax_the_page_has_no_words_or_marks(show):
    page = show(make_trace(TOKENS, layers=2))
    page.locator(".tok").nth(3).click(position={"x": 3, "y": 8})
    assert page.inner_text(".detail .said") == ""
    assert page.locator(".marks").is_hidden()
    assert page.locator(".chip .share").first.inner_text().endswith("%")
    assert "an even share" in page.inner_text(".detail .key")
