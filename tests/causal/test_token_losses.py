"""Losses batched over plans equal the plain forward pass of each plan and text alone."""

import pytest
import torch
import torch.nn.functional as F
from tiny_models import ROUTERS, make_bank, make_tiny_base
from tolerances import ONE_PASS

from lmoe_studio.causal import token_losses as module
from lmoe_studio.causal.token_losses import token_losses
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan

PLANS = [
    None,
    RoutingPlan([Override.bypass()]),
    RoutingPlan([Override.solo("sql", tokens=(3, 40))]),
    RoutingPlan([Override.uniform(), Override.ban("prose")]),
]
LENGTHS = (50, 31, 2, 1)


@pytest.fixture
def sequences():
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, 256, (length,), generator=generator).tolist() for length in LENGTHS]


def alone(model, ids, plan):
    with torch.no_grad():
        logits = model(torch.tensor([ids]), plan=plan).logits[0]
    return F.cross_entropy(logits[:-1], torch.tensor(ids[1:], dtype=torch.long), reduction="none")


@pytest.mark.parametrize("router", ROUTERS, ids=str)
@pytest.mark.parametrize(("window", "per_pass"), [(1024, 2048), (16, 64)])
def test_they_equal_one_pass_for_each_plan_and_text(
    router, window, per_pass, sequences, monkeypatch
):
    monkeypatch.setattr(module, "_WINDOW", window)
    monkeypatch.setattr(module, "_PASS", per_pass)
    base = make_tiny_base()
    model = MixtureModel(base, make_bank(base, router=router)).eval()
    found = token_losses(model, sequences, PLANS)
    assert [tuple(loss.shape) for loss in found] == [(4, length - 1) for length in LENGTHS]
    for ids, losses in zip(sequences, found, strict=True):
        for plan, loss in zip(PLANS, losses, strict=True):
            torch.testing.assert_close(loss, alone(model, ids, plan), **ONE_PASS)


def test_a_plan_may_differ_from_text_to_text(sequences):
    base = make_tiny_base()
    model = MixtureModel(base, make_bank(base)).eval()
    found = token_losses(model, sequences, [None, PLANS])
    for ids, plan, losses in zip(sequences, PLANS, found, strict=True):
        torch.testing.assert_close(losses[1], alone(model, ids, plan), **ONE_PASS)


def test_each_pass_takes_its_turn(sequences):
    class Turns:
        count = 0

        def __enter__(self):
            self.count += 1

        def __exit__(self, *_):
            pass

    base = make_tiny_base()
    turns = Turns()
    token_losses(MixtureModel(base, make_bank(base)).eval(), sequences, PLANS * 20, turn=turns)
    assert turns.count == 8  # 4 texts of 50 tokens: 10 plans a pass
