import json
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
from fake_studio import NAMES, make_trace

from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.palette import EXPERT_COLOURS, expert_colour, expert_glyph
from lmoe_studio.ui.payload import MOST_TOKENS, exact_cell, read_pick, trace_payload


def decoded(payload):
    weights = np.frombuffer(b64decode(payload["weights"]), np.uint8).reshape(payload["shape"])
    return weights / 255 * payload["scale"]


def test_weights_arrive_within_half_a_step():
    trace = make_trace(["a", " b", "c"], layers=4)
    payload = trace_payload(trace, key="k")
    assert payload["shape"] == (3, 4, 8)
    np.testing.assert_allclose(decoded(payload), trace.routing_weights, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("weights", [(2.5, 0.5, -1.0), (0.5, 0.2, -3.0), (-0.1, -0.2, -0.3)])
def test_weights_beyond_0_and_1_are_scaled_and_those_below_0_stand_apart(weights):
    trace = make_trace(["a"], layers=1, experts=("x", "y", "z"))
    payload = trace_payload(
        replace(trace, routing_weights=np.array([[weights]], np.float32)), key="k"
    )
    scale = max(1, *map(abs, weights))
    assert payload["scale"] == scale
    shown = decoded(payload) - decoded(payload | {"weights": payload["below"]})
    np.testing.assert_allclose(shown, [[weights]], atol=scale / 510 + 1e-6)


def test_own_weights_below_0_stand_apart_too():
    trace = make_trace(["a"], layers=1, experts=("x", "y"))
    own = np.array([[[0.5, -2]]], np.float32)
    changed = replace(trace, router_weights=own, overridden=np.ones((1, 1, 2), bool))
    payload = trace_payload(changed, key="k")
    assert payload["scale"] == 2
    assert b64decode(payload["own"]) == bytes([64, 0])
    assert b64decode(payload["own_below"]) == bytes([0, 255])


def test_of_a_softmax_nothing_is_sent_besides_its_weights():
    trace = make_trace(["a", "b"], layers=3)
    top = np.where(np.arange(8) < 2, np.float32(0.5), np.float32(0))
    for weights in (trace.routing_weights, np.broadcast_to(top, (2, 3, 8))):
        payload = trace_payload(replace(trace, routing_weights=weights), key="k")
        assert not {"sites", "below", "own_below", "notes"} & payload.keys()


def test_the_payload_of_a_long_trace_is_at_most_250_kilobytes(figures):
    random = np.random.default_rng(0)
    words = ["".join(map(chr, random.integers(97, 123, size=6))) for _ in range(2560)]
    trace = make_trace([f" {word}" for word in words[:512]])
    rows = tuple(tuple(words[5 * t : 5 * t + 5]) for t in range(512))
    payload = trace_payload(replace(trace, alternative_tokens=rows), key="k" * 22)
    size = len(json.dumps(payload))
    figures("payload of 512 tokens × 30 layers × 8 experts", f"{size:,} bytes")
    assert size <= 250_000


def test_alternatives_read_back():
    trace = make_trace(["a", "b", "c"], layers=1)
    payload = trace_payload(trace, key="k")
    indices = np.frombuffer(b64decode(payload["alternatives"]), "<u2").reshape(3, 5)
    texts = [[payload["strings"][index] for index in row] for row in indices]
    assert texts == [list(row) for row in trace.alternative_tokens]
    logprobs = np.frombuffer(b64decode(payload["alternative_logprobs"]), "<u2").reshape(3, 5)
    np.testing.assert_allclose(logprobs[1:] / -1000.0, trace.alternative_logprobs[1:], atol=1e-3)


def test_a_trace_without_alternatives_or_tokens_is_a_payload_too():
    trace = make_trace(["a", "b"], layers=1)
    none = replace(
        trace,
        alternative_ids=np.zeros((2, 0), np.int32),
        alternative_logprobs=np.zeros((2, 0), np.float32),
        alternative_tokens=((), ()),
    )
    assert trace_payload(none, key="k")["strings"] == []
    assert trace_payload(make_trace([], layers=2), key="k")["shape"] == (0, 2, 8)


def test_special_and_generated_tokens_are_flagged():
    trace = make_trace(["<|im_start|>", "a", "b"], layers=1)
    trace = replace(trace, generated=np.array([False, False, True]))
    assert b64decode(trace_payload(trace, key="k")["flags"]) == bytes([1, 0, 2])


def test_more_tokens_than_the_workbench_shows_are_counted():
    trace = make_trace(["a"] * (MOST_TOKENS + 5), layers=1, experts=("x", "y"))
    payload = trace_payload(trace, key="k")
    assert payload["shape"][0] == len(payload["tokens"]) == MOST_TOKENS
    assert payload["total"] == MOST_TOKENS + 5


def test_only_nearly_uniform_routing_is_called_so():
    trace = make_trace(["a", "b"], layers=2)
    even = replace(trace, routing_weights=np.full((2, 2, 8), 1 / 8, dtype=np.float32))
    assert trace_payload(even, key="k")["uniformity"] == 1
    assert trace_payload(trace, key="k")["uniformity"] is None
    lone = make_trace(["a"], layers=2, experts=("only",))
    assert trace_payload(lone, key="k")["uniformity"] is None


def test_sites_of_one_layer_are_averaged():
    trace = make_trace(["a"], layers=4)
    trace = replace(trace, site_layers=(0, 0, 1, 1), site_modules=("q", "k", "q", "k"))
    payload = trace_payload(trace, key="k")
    assert payload["shape"] == (1, 2, 8)
    assert payload["layers"] == [0, 1]
    np.testing.assert_allclose(
        exact_cell(trace, key="k", lo=0, hi=0, layer=1)["weights"],
        trace.routing_weights[0, 2:].mean(axis=0),
        rtol=1e-6,
    )


def test_an_exact_cell_is_exact_and_a_range_is_a_mean():
    trace = make_trace(["a", "b", "c"], layers=4, contributions=True)
    cell = exact_cell(trace, key="k", lo=1, hi=1, layer=2)
    assert cell["weights"] == trace.routing_weights[1, 2].tolist()
    assert cell["contributions"] == trace.contributions[1, 2].tolist()
    assert cell["token_id"] == 1
    several = exact_cell(trace, key="k", lo=0, hi=2, layer=-1)
    np.testing.assert_allclose(
        several["weights"], trace.routing_weights.mean(axis=(0, 1)), rtol=1e-6
    )
    assert several["token_id"] is None


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "lo",
        {},
        {"lo": 0, "hi": 0},
        {"lo": 0, "hi": 3, "layer": 0},
        {"lo": -1, "hi": 0, "layer": 0},
        {"lo": 2, "hi": 1, "layer": 0},
        {"lo": 0, "hi": 0, "layer": 4},
        {"lo": 0, "hi": 0, "layer": -2},
        {"lo": 0.0, "hi": 0, "layer": 0},
        {"lo": True, "hi": 1, "layer": 0},
        {"lo": "0", "hi": 0, "layer": 0},
        {"lo": 0, "hi": 10**40, "layer": 0},
    ],
)
def test_a_nonsense_pick_is_refused(data):
    assert read_pick(data, make_trace(["a", "b", "c"], layers=4)) is None


def test_a_pick_is_read():
    trace = make_trace(["a", "b", "c"], layers=4)
    assert read_pick({"lo": 0, "hi": 2, "layer": -1, "id": "x"}, trace) == (0, 2, -1)


def test_glyphs_are_unique_and_colours_repeat():
    glyphs = [expert_glyph(index) for index in range(800)]
    assert len(set(glyphs)) == 800
    assert [glyphs[index] for index in (0, 25, 26, 27, 701, 702)] == [
        "A", "Z", "AA", "AB", "ZZ", "AAA",
    ]  # fmt: skip
    assert expert_colour(len(EXPERT_COLOURS)) == expert_colour(0)
    assert len(set(EXPERT_COLOURS)) == len(EXPERT_COLOURS) >= len(NAMES)


def test_every_surrogate_is_replaced_and_nothing_else():
    for code in range(0xD800, 0xE000):
        assert clean(f"a{chr(code)}b") == "a\ufffdb"
    text = "é😀\u202e\0 \ufffd"
    assert clean(text) == text
    trace = make_trace(["\ud83d", "a"], layers=1, experts=("\udc00", "b"))
    json.dumps(trace_payload(trace, key="k"), ensure_ascii=False).encode()
