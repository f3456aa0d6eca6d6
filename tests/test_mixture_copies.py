"""A routed model is moved, cast, copied and pickled like any other module."""

import copy
import pickle

import pytest
import torch
from tiny_models import ROUTERS, make_bank, make_tiny_base, make_tiny_studio

from lmoe_studio.errors import PlanError
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override


@pytest.mark.parametrize("router", ROUTERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_a_cast_model_runs_and_its_routers_stay_in_float32(router, dtype, ids):
    studio = make_tiny_studio(router=router)
    before = [one.clone() for one in studio.model.routers.state_dict().values()]
    expected = studio.model(ids).logits
    found = studio.model.to(dtype)(ids, record=True)
    assert found.logits.dtype == dtype
    assert found.routing.logits.dtype == torch.float32
    if dtype == torch.float64:
        torch.testing.assert_close(found.logits.float(), expected, atol=1e-4, rtol=1e-4)
    for one, old in zip(studio.model.routers.state_dict().values(), before, strict=True):
        assert torch.equal(one, old)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("scope", range(3))
def test_a_copy_says_the_same_and_is_independent(how, scope, ids):
    base = make_tiny_base()
    model = MixtureModel(base, make_bank(base, router=ROUTERS[scope])).eval()
    expected = model(ids, record=True)
    twin = how(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = twin(ids, record=True)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.routing.weights, expected.routing.weights)
    twin.detach()
    assert model(ids, record=True).routing is not None


def test_a_folded_model_is_neither_moved_nor_copied():
    studio = make_tiny_studio()
    with studio.fold(Override.solo("sql")):
        with pytest.raises(PlanError, match="cannot be moved; unfold it first"):
            studio.model.half()
        with pytest.raises(PlanError, match="cannot be copied; unfold it first"):
            copy.deepcopy(studio.model)
    copy.deepcopy(studio.model.half())
