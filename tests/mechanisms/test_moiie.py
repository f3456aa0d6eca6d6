"""A gate for each type of token, against the published one (arXiv 2508.09779)."""

import pytest
import torch
from mechanisms.vectors import EXACT, cases, same

from lmoe_studio.routing.balance import BalanceGroup, group_balance
from lmoe_studio.routing.gates import activated, largest
from lmoe_studio.routing.losses import load_balancing_loss
from lmoe_studio.routing.typed import typed_scores

CASES = ["n4", "n8"]


def routed(case):
    inputs = cases("moiie")[case]["inputs"]
    types, weight, allowed = inputs["types"], inputs["weight"], inputs["allowed"]
    logits = typed_scores(inputs["hidden"], types, weight)
    probs = activated(logits, allowed=allowed[types])
    return inputs, logits, probs, largest(probs, inputs["top_k"])


@pytest.mark.parametrize("case", CASES)
def test_routing(case):
    expected = cases("moiie")[case]["outputs"]
    inputs, logits, probs, weights = routed(case)
    allowed = inputs["allowed"]
    same(logits * allowed[inputs["types"]], expected["logits_allowed_only"])
    same(probs, expected["probs"])
    same(weights, expected["weights"])
    same(weights[:, allowed.all(0)].sum(-1), expected["common_share"])
    assert (weights[~allowed[inputs["types"]]] == 0).all()


@pytest.mark.parametrize("case", CASES)
def test_balance_by_type(case):
    expected = cases("moiie")[case]["outputs"]
    inputs, _, probs, _ = routed(case)
    probs, types = probs[None, :, None], inputs["types"][None]
    groups = [
        BalanceGroup(allowed.nonzero().flatten(), types == number)
        for number, allowed in enumerate(inputs["allowed"])
    ]
    losses = group_balance(probs, groups)
    published = []
    for experts, tokens in groups:
        own = probs[..., experts]
        chosen = torch.zeros_like(own).scatter(-1, own.topk(2).indices, 1.0)
        load = chosen[tokens].mean(0)  # counts both choices
        published.append(load_balancing_loss(own, tokens, load))
    for number, name in enumerate(inputs["type_names"]):
        found = float(losses[number]), float(published[number])
        wanted = expected["balance_top1_by_type"][name], expected["balance_topk_by_type"][name]
        assert found == pytest.approx(wanted, abs=EXACT["atol"])


def test_a_group_without_tokens_asks_nothing():
    probs = torch.rand(1, 3, 2, 4)
    nobody = BalanceGroup(torch.tensor([0, 1]), torch.zeros(1, 3, dtype=torch.bool))
    everybody = BalanceGroup(torch.arange(4), torch.ones(1, 3, dtype=torch.bool))
    losses = group_balance(probs, [nobody, everybody])
    assert losses[0] == 0
    torch.testing.assert_close(losses[1], load_balancing_loss(probs, everybody.tokens))
