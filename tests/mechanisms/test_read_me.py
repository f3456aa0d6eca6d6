"""Routes from ids alone, against the published predictor (arXiv 2410.19123)."""

import pytest
import torch
import torch.nn.functional as F
from mechanisms.vectors import EXACT, cases, same

from lmoe_studio.routing.distillation import agreement, distillation_loss
from lmoe_studio.routing.pre import id_states

INPUTS = cases("readme")["pre_router"]["inputs"]
EXPECTED = cases("readme")["pre_router"]["outputs"]


def logits_of(ids, is_token=None, positions=None, **options):
    p = INPUTS["parameters"]
    is_token = torch.ones_like(ids, dtype=torch.bool) if is_token is None else is_token
    positions = torch.arange(ids.shape[1]).expand_as(ids) if positions is None else positions
    options = {name: INPUTS[name] for name in ("layers", "heads", "theta", "normaliser")} | options
    states = id_states(ids, positions, is_token, p, **options)
    return F.linear(states, p["out"], p["out_bias"])


def test_routes():
    ids = INPUTS["ids"][None]
    same(logits_of(ids)[0], EXPECTED["logits"])
    assert torch.equal(logits_of(ids)[0].argmax(-1), EXPECTED["choice"])


def test_it_is_causal():
    ids = INPUTS["ids"][None]
    same(logits_of(ids[:, :3])[0], EXPECTED["prefix_of_3"])
    same(logits_of(ids)[0, :3], EXPECTED["prefix_of_3"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side):
    ids = INPUTS["ids"]
    nothing = torch.full((2,), 7)
    row = torch.cat([nothing, ids] if side == "left" else [ids, nothing])
    here = slice(2, None) if side == "left" else slice(0, 6)
    is_token = torch.zeros(1, 8, dtype=torch.bool)
    is_token[:, here] = True
    positions = (is_token.long().cumsum(-1) - 1).clamp_min(0)
    found = logits_of(row[None], is_token, positions)
    same(found[0, here], EXPECTED["logits"])
    assert found.isfinite().all()


def test_scores_are_divided_by_the_root_of_a_heads_width_unless_it_is_told():
    ids = INPUTS["ids"][None]
    same(logits_of(ids, normaliser=None), logits_of(ids, normaliser=2.0))
    assert (logits_of(ids, normaliser=None) - logits_of(ids)).abs().max() > 1e-3


def test_distillation():
    case = cases("readme")["router_distillation"]
    logits, teacher = case["inputs"]["pred"][None, :, None], case["inputs"]["teacher"][None]
    mask = torch.ones(1, 6, dtype=torch.bool)
    loss = distillation_loss(logits, teacher, mask)
    assert float(loss) == pytest.approx(case["outputs"]["kl"], abs=EXACT["atol"])
    same(agreement(logits, teacher, mask), case["outputs"]["agreement_by_site"])


def test_distillation_leaves_padding_out_and_takes_a_teacher_that_is_sure():
    teacher = torch.eye(3)[None, :, None].expand(1, 3, 2, 3)
    mask = torch.tensor([[True, True, False]])
    logits = torch.zeros(1, 3, 1, 3, requires_grad=True)
    loss = distillation_loss(logits, teacher, mask)
    torch.testing.assert_close(loss, torch.tensor(3.0).log())
    loss.backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, 2] == 0).all()
    torch.testing.assert_close(agreement(teacher, teacher, mask), torch.ones(2))
