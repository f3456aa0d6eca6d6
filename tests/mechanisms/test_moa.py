"""Sigmoid gates with a learned threshold, against the published ones (arXiv 2506.05928)."""

import torch
from mechanisms.vectors import cases, same

from lmoe_studio.routing.gates import above_threshold, activated, learned_threshold
from lmoe_studio.routing.mlp import swiglu_logits

LIMIT = "max_threshold"


def scores(inputs, **changed):
    p = inputs["parameters"] | changed
    names = [f"router.{part}" for part in ("w1", "b1", "w3", "b3", "w2", "b2")]
    logits = swiglu_logits(inputs["hidden"], *(p[name] for name in names))
    hidden, limit = inputs["hidden"], inputs[LIMIT]
    return logits, learned_threshold(hidden, p["threshold.w"], p["threshold.b"], limit)


def test_gates():
    inputs, expected = cases("moa")["gates"]["inputs"], cases("moa")["gates"]["outputs"]
    logits, threshold = scores(inputs)
    same(logits, expected["logits"])
    same(threshold, expected["threshold"])
    soft = activated(logits, "sigmoid")
    same(soft, expected["soft"])
    sparse = above_threshold(soft, threshold)
    same(sparse, expected["sparse"])
    same(above_threshold(soft, threshold, "margin"), expected["margin"])
    same(sparse.sum(-1), expected["mass"])
    assert torch.equal((sparse > 0).sum(-1), expected["active"])


def test_a_plan_changes_the_logits_and_leaves_the_threshold():
    inputs, expected = cases("moa")["gates"]["inputs"], cases("moa")["gates"]["outputs"]
    logits, threshold = scores(inputs)
    after = expected["after_plan_bias"]
    probs = activated(logits + after["bias"], "sigmoid")
    same(above_threshold(probs, threshold), after["sparse"])


def test_the_threshold_learns_by_the_gradient_of_the_margin():
    inputs, expected = cases("moa")["gates"]["inputs"], cases("moa")["gates"]["outputs"]
    expected = expected["straight_through_of_sum_i_times_w"]
    names = ("threshold.w", "threshold.b", "router.b2")
    own = {name: inputs["parameters"][name].clone().requires_grad_() for name in names}
    logits, threshold = scores(inputs, **own)
    weights = above_threshold(activated(logits, "sigmoid"), threshold)
    same(weights.detach(), expected["value"])
    (weights * torch.arange(1, 8)).sum().backward()
    for name, parameter in own.items():
        same(parameter.grad, expected["gradients"][name])


def test_what_is_kept_is_kept_to_the_bit():
    probs = torch.rand(50, 7).requires_grad_()
    kept = above_threshold(probs, torch.rand(50, 1).requires_grad_())
    assert set(kept.flatten().tolist()) <= {0.0, *probs.flatten().tolist()}
    assert above_threshold(torch.tensor([0.5]), 0.5) == 0.5
