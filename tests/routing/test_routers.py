"""Routers and losses, against formulas written out."""

import pytest
import torch

from lmoe_studio.errors import ConfigError
from lmoe_studio.routing.arrow import prototype
from lmoe_studio.routing.gates import activated, largest
from lmoe_studio.routing.losses import load_balancing_loss, router_z_loss, skill_loss
from lmoe_studio.routing.registry import ROUTERS, router_class
from lmoe_studio.routing.router import Router, inverse_rms
from lmoe_studio.routing.settings import RouterSettings


def test_rms_normalises_each_token_and_leaves_zeros():
    hidden = torch.randn(2, 5, 16) * 1000
    normal = hidden * inverse_rms(hidden)
    torch.testing.assert_close(normal.square().mean(-1), torch.ones(2, 5))
    expected = torch.rsqrt(hidden.square().mean(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(inverse_rms(hidden), expected)
    nothing = torch.zeros(1, 1, 16, requires_grad=True)
    (nothing * inverse_rms(nothing)).sum().backward()
    assert nothing.grad.isfinite().all()


def test_top_k_keeps_the_largest_and_their_sum():
    probs = torch.tensor([[0.5, 0.2, 0.3]])
    kept = largest(probs, 2)
    torch.testing.assert_close(kept, torch.tensor([[0.625, 0.0, 0.375]]))
    kept = largest(probs, 2, renormalise=False)
    torch.testing.assert_close(kept, torch.tensor([[0.5, 0.0, 0.3]]))
    assert largest(probs, 7) is probs


def test_activation_and_temperature():
    logits = torch.tensor([[1.0, 3.0]])
    soft = activated(logits, temperature=2.0)
    torch.testing.assert_close(soft, torch.tensor([[0.5, 1.5]]).softmax(-1))
    sigmoid = activated(logits, "sigmoid")
    torch.testing.assert_close(sigmoid, logits.sigmoid())


@pytest.mark.parametrize("rank", [1, 4])
def test_the_arrow_prototype_is_the_top_right_singular_vector(rank):
    a, b = torch.randn(rank, 12), torch.randn(9, rank)
    expected = torch.linalg.svd(b @ a).Vh[0]
    found = prototype(a, b)
    assert found.norm() == pytest.approx(1, abs=1e-5)
    assert abs(float(found @ expected)) == pytest.approx(1, abs=1e-4)


def test_the_registry_names_what_there_is():
    for values, message in [
        ({"kind": "linaer"}, "no router of kind 'linaer'; did you mean 'linear'"),
        ({"kind": "arrow"}, "scope is 'module'"),
        ({"options": {"width": 3}}, "The linear router's options: unknown option 'width'"),
        ({"kind": "blend", "options": {"weight": {}}}, "did you mean 'weights'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            RouterSettings.parse(values, source="router")
    for kind in ROUTERS:
        assert issubclass(router_class(kind), Router)


def test_settings_say_what_is_wrong_with_them():
    for values, message in [
        ({"kindd": "linear"}, "unknown option 'kindd', did you mean 'kind'"),
        ({"temperature": 0}, "temperature: .* got '0'"),
        ({"kind": "blend"}, "blend"),
    ]:
        with pytest.raises(ConfigError, match=message):
            RouterSettings.parse(values, source="router")


def test_balance_loss_is_one_when_balanced_and_n_when_collapsed():
    mask = torch.ones(1, 4, dtype=torch.bool)
    balanced = torch.eye(4)[None, :, None]
    collapsed = torch.eye(4)[0].expand(1, 4, 1, 4)
    assert load_balancing_loss(balanced, mask) == pytest.approx(1)
    assert load_balancing_loss(collapsed, mask) == pytest.approx(4)


def test_sigmoids_that_vanish_leave_no_weight_rather_than_nan():
    weights = largest(activated(torch.tensor([[-200.0, -150, -120, -99]]) * 10, "sigmoid"), 2)
    assert (weights == 0).all()
    faint = largest(torch.tensor([[1e-30, 2e-30, 0, 0]]), 2)
    torch.testing.assert_close(faint, torch.tensor([[1e-30, 2e-30, 0, 0]]))


def test_losses_leave_padding_out():
    probs = torch.rand(2, 5, 3, 4).softmax(-1)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    changed = torch.where(mask[..., None, None], probs, torch.rand_like(probs))
    skills = torch.tensor([1, -1])
    for loss in (load_balancing_loss, router_z_loss):
        torch.testing.assert_close(loss(probs, mask), loss(changed, mask))
    torch.testing.assert_close(skill_loss(probs, skills, mask), skill_loss(changed, skills, mask))
    expected = -probs[0, :3, :, 1].log().mean()
    torch.testing.assert_close(skill_loss(probs, skills, mask), expected)
    assert skill_loss(probs, torch.tensor([-1, -1]), mask) == 0


def test_z_loss_by_hand():
    logits = torch.zeros(1, 2, 1, 4)
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert router_z_loss(logits, mask) == pytest.approx(torch.tensor(4.0).log().item() ** 2)
