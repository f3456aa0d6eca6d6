"""Experts as a tree, against the published layer (arXiv 2504.06426). Its levels count from the leaves."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from mechanisms.vectors import EXACT, cases, same

from lmoe_studio.routing.branches import (
    LevelGate,
    along_paths,
    branch_logits,
    choices,
    flat,
    heaviest_path,
    node_logits,
    node_weights,
    shifted,
    switch_balance,
    unflat,
    variation_balance,
)

STYLES = ["switch", "dense", "cosine"]
TOP_DOWN = (1, 0)
SIZES = (4, 4)


def branches_of(style):
    smore = cases("smore")
    p = smore["parameters"]
    gates = [
        LevelGate(*(p[f"gate.{level}.{part}"] for part in ("w1", "b1", "w2", "b2", "keys")))
        for level in TOP_DOWN
    ]
    query = F.linear(smore["inputs"]["x"], p["down"], p["down_bias"])
    return branch_logits(query, gates, cosine=style == "cosine")


def fan_outs(style):
    return SIZES if style == "dense" else cases("smore")["inputs"]["fanout"].tolist()


def by_level(tokens, name):
    """Node weights of all tokens, top level first: `[token, node]`."""
    return torch.stack([torch.cat([one[name][str(level)] for level in TOP_DOWN]) for one in tokens])


@pytest.mark.parametrize("style", STYLES)
def test_node_weights_and_leaf_paths(style):
    tokens = cases("smore")[style]
    chosen = choices(branches_of(style), fan_outs(style))
    same(node_weights(chosen), by_level(tokens, "node_weights"))
    products = along_paths(chosen)[-1]
    for token, one in enumerate(tokens):
        found = {
            f"{top}/{leaf}": torch.stack(
                [chosen[0][token, top], chosen[1][token, top, leaf], products[token, top, leaf]]
            )
            for top, leaf in itertools.product(range(4), range(4))
            if products[token, top, leaf]
        }
        assert found.keys() == one["leaf_paths"].keys()
        for path, along in one["leaf_paths"].items():
            same(found[path], along)


@pytest.mark.parametrize("style", STYLES)
def test_a_plans_bias_routes_anew(style):
    bias = cases("smore")["inputs"]["node_bias"]
    change = torch.cat([bias[str(level)] for level in TOP_DOWN])
    branches = branches_of(style)
    changed = shifted(branches, change.expand(3, -1), SIZES)
    weights = node_weights(choices(changed, fan_outs(style)))
    same(weights, by_level(cases("smore")[style], "node_weights_after_bias"))


@pytest.mark.parametrize("style", STYLES)
def test_the_layer_without_activations_is_the_mixture_of_these_weights(style):
    smore = cases("smore")
    p, x = smore["parameters"], smore["inputs"]["x"]
    top, leaf = node_weights(choices(branches_of(style), fan_outs(style))).split(SIZES, dim=-1)
    y = 0
    for weights, level, carry in ((top, 1, p["out"]), (leaf, 0, p["out"] @ p["w.1"])):
        y = y + torch.einsum(
            "tn,od,ndr,nri,ti->to", weights, carry, p[f"b.{level}"], p[f"a.{level}"], x
        )
    for name in ("y_identity_no_bias", "y_flat_mixture"):
        same(y, torch.stack([one[name] for one in smore[style]]))


def test_balance():
    expected = cases("smore")["balance"]
    for style, loss in (("switch", switch_balance), ("cosine", variation_balance)):
        branches = branches_of(style)
        found = 0.01 * loss(branches, choices(branches, fan_outs(style))).sum()
        assert float(found) == pytest.approx(expected[style], abs=EXACT["atol"])


def three_levels():
    torch.manual_seed(0)
    sizes, width, key = (2, 3, 4), 5, 3
    gates = [
        LevelGate(
            torch.randn(key, width + depth * key), torch.randn(key), torch.randn(key, key),
            torch.randn(key), torch.randn(size, key),
        )
        for depth, size in enumerate(sizes)
    ]  # fmt: skip
    return sizes, branch_logits(torch.randn(2, 6, width), gates)


def test_three_levels_by_hand():
    sizes, branches = three_levels()
    chosen = choices(branches, (1, 2, 3), temperature=0.5)
    weights = node_weights(chosen)
    expected = torch.zeros_like(weights)
    first = torch.tensor([0, *sizes]).cumsum(0)
    for path in itertools.product(*map(range, sizes)):
        share = torch.ones(2, 6)
        for depth, node in enumerate(path):
            share = share * chosen[depth][(..., *path[: depth + 1])]
            rest = sizes[depth + 1 :]
            expected[..., first[depth] + node] += share / torch.tensor(rest).prod()
    torch.testing.assert_close(weights, expected)
    for level in weights.split(sizes, dim=-1):
        torch.testing.assert_close(level.sum(-1), torch.ones(2, 6))
    kept = [int((one > 0).sum()) for one in chosen]
    assert kept == [12 * 1, 12 * 2 * 2, 12 * 6 * 3]


def test_the_heaviest_path_is_the_one_with_the_largest_product():
    sizes, branches = three_levels()
    chosen = choices(branches, (1, 2, 3))
    nodes, share = heaviest_path(chosen)
    for row, token in itertools.product(range(2), range(6)):
        products = {
            path: float(
                torch.stack(
                    [one[(row, token, *path[: depth + 1])] for depth, one in enumerate(chosen)]
                ).prod()
            )
            for path in itertools.product(*map(range, sizes))
        }
        best = max(products, key=products.__getitem__)
        assert tuple(nodes[row, token].tolist()) == best
        assert float(share[row, token]) == pytest.approx(products[best])


def test_branches_in_one_row_and_back():
    sizes, branches = three_levels()
    row = flat(branches)
    assert row.shape == (2, 6, 2 + 6 + 24)
    assert all(map(torch.equal, unflat(row, sizes), branches))
    whole = node_weights([one.softmax(-1) for one in branches])
    torch.testing.assert_close(node_logits(branches).exp(), whole)
    nothing = shifted(branches, torch.zeros_like(whole), sizes)
    assert all(map(torch.equal, nothing, branches))


def test_closing_a_branch_takes_the_weight_from_all_below_it():
    sizes, branches = three_levels()
    change = torch.zeros(2, 6, sum(sizes))
    change[..., 0] = -torch.inf
    weights = node_weights(choices(shifted(branches, change, sizes), sizes))
    assert (weights[..., 0] == 0).all()
    alone = node_weights(
        choices(
            [branches[0][..., 1:], branches[1][..., 1:, :], branches[2][..., 1:, :, :]], (1, 3, 4)
        )
    )
    torch.testing.assert_close(weights[..., 1:], alone)
