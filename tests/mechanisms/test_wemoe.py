"""One blend a text, against the published gate (arXiv 2402.00433, 2410.21804)."""

import pytest
import torch
from mechanisms.vectors import cases, same

from lmoe_studio.routing.layer_code import layer_code
from lmoe_studio.routing.mlp import relu_logits
from lmoe_studio.routing.pooling import pooled

GATE = ("w1", "b1", "w2", "b2")


def token_scores(hidden, gate):
    return relu_logits(hidden, *(gate[name] for name in GATE))


def test_one_blend_a_text():
    case = cases("wemoe")["sequence"]
    scores = token_scores(case["inputs"]["hidden"], case["inputs"]["gate"])
    every = torch.ones(scores.shape[:2], dtype=torch.bool)
    for counted, name in ((every, "weights"), (case["inputs"]["is_token"], "weights_masked")):
        weights, _ = pooled(scores, counted, "prompt", {})
        same(weights, case["outputs"][name][:, None].expand_as(weights))


def test_one_gate_for_all_layers_reads_which_layer_it_is_in():
    case = cases("wemoe")["shared"]
    inputs, expected = case["inputs"], case["outputs"]
    hidden, width = inputs["hidden"], inputs["code_width"]
    same(layer_code(inputs["layer"], hidden, width), expected["code"])
    same(layer_code(7, hidden, 8), expected["code_layer_7_width_8"])
    code = layer_code(inputs["layer"], hidden, width).expand(*hidden.shape[:-1], -1)
    read = torch.cat([code, hidden], dim=-1)
    every = torch.ones(hidden.shape[:2], dtype=torch.bool)
    weights, _ = pooled(token_scores(read, inputs["gate"]), every, "prompt", {})
    same(weights, expected["weights"][:, None].expand_as(weights))


def long_text():
    case = cases("wemoe")["pooling"]
    scores = token_scores(case["inputs"]["hidden"], cases("wemoe")["sequence"]["inputs"]["gate"])
    return scores, case["inputs"]["is_prompt_token"], case["outputs"]


def test_pooling():
    scores, counted, expected = long_text()
    same(scores, expected["token_scores"])
    same(pooled(scores, counted, "prefix", {})[0], expected["prefix"])
    for_all = expected["prompt"][:, None].expand_as(scores)
    same(pooled(scores, counted, "prompt", {})[0], for_all)
    assert pooled(scores, counted, "token", {}) == (scores, {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cuts", [(2,), (1, 2, 3, 4), (3, 4)])
def test_a_prefix_in_parts_is_the_prefix_whole(cuts, dtype):
    scores, counted, _ = long_text()
    scores = scores.to(dtype)
    whole, kept = pooled(scores, counted, "prefix", {})
    parts, past = [], {}
    for start, stop in zip((0, *cuts), (*cuts, 5), strict=True):
        part, past = pooled(scores[:, start:stop], counted[:, start:stop], "prefix", past)
        parts.append(part)
    tolerance = {"atol": 4 * torch.finfo(dtype).eps * float(scores.abs().sum()), "rtol": 0}
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, **tolerance)
    torch.testing.assert_close(past, kept, **tolerance)


def test_tokens_after_the_prompt_keep_its_mean():
    scores, counted, expected = long_text()
    _, past = pooled(scores[:, :3], counted[:, :3], "prompt", {})
    after, kept = pooled(scores[:, 3:], counted[:, 3:], "prompt", past)
    same(after, expected["prompt"][:, None].expand_as(after))
    assert all(torch.equal(kept[name], past[name]) for name in past)


def test_a_prefix_sees_nothing_of_what_comes_after():
    scores, counted, _ = long_text()
    changed = scores.clone()
    changed[:, 2:] += 100
    assert torch.equal(
        pooled(changed, counted, "prefix", {})[0][:, :2],
        pooled(scores, counted, "prefix", {})[0][:, :2],
    )
