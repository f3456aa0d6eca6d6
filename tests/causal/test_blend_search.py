"""Blend search: exact gradients, and it finds a blend that was planted."""

import pytest
import torch
from tiny_models import make_bank, make_tiny_base

from lmoe_studio.causal.blend_search import HIGHEST, LOWEST, blend_gradient, search_blend
from lmoe_studio.causal.token_losses import token_losses
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.settings import RouterSettings

PLANTED = {"sql": 0.8, "prose": -0.3, "math": 0.4}


def make_model(**options):
    base = make_tiny_base()
    return MixtureModel(base, make_bank(base, **options)).eval()


@pytest.fixture
def sequences():
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, 256, (length,), generator=generator).tolist() for length in (30, 12)]


@torch.no_grad()
def written_under(model, plan, rows=24, length=48):
    """Texts drawn from the model under a plan."""
    torch.manual_seed(0)
    ids = torch.randint(3, 256, (rows, 1))
    for _ in range(length):
        logits = model(ids, plan=plan, logits_to_keep=1).logits[:, -1]
        ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1)], dim=1)
    return ids.tolist()


def loss_under(model, sequences, plan):
    losses = torch.cat([loss[0] for loss in token_losses(model, sequences, [plan])])
    return float(losses.double().mean())


@pytest.mark.parametrize(
    "options",
    [{}, {"composition": "factor"}, {"router": RouterSettings(scope="module")}],
    ids=["output", "factor", "module"],
)
def test_gradients_equal_finite_differences(options, sequences):
    model, point, step = make_model(**options), torch.tensor([0.5, 0.1, -0.2]), 1e-2
    loss, gradient = blend_gradient(model, sequences, point)
    names = model.bank.expert_names

    def at(weights):
        pin = Override.pin(dict(zip(names, weights.tolist(), strict=True)), renormalise=False)
        return loss_under(model, sequences, RoutingPlan([pin]))

    assert loss == pytest.approx(at(point), abs=1e-4)
    shifts = torch.eye(3) * step
    slopes = [(at(point + shift) - at(point - shift)) / (2 * step) for shift in shifts]
    assert gradient.tolist() == pytest.approx(slopes, rel=2e-2, abs=2e-3)


def test_a_planted_blend_is_found():
    model = make_model(size=0.15)
    plan = RoutingPlan([Override.pin(PLANTED, renormalise=False)])
    texts = written_under(model, plan)
    heard = []
    found = search_blend(model, texts, steps=40, on_step=lambda *step: heard.append(step))
    assert found.loss <= loss_under(model, texts, plan) + 1e-3
    assert found.loss == min(found.losses) < found.losses[0]
    assert found.weights == pytest.approx(PLANTED, abs=0.1)
    assert loss_under(model, texts, found.plan) == pytest.approx(found.loss, abs=1e-4)
    assert [step for step, _ in heard] == list(range(1, 41))


def test_it_starts_where_it_is_told_and_stays_within_what_a_plan_may_pin(sequences):
    model = make_model()
    found = search_blend(model, sequences, steps=1, start=PLANTED)
    assert found.weights == pytest.approx(PLANTED)
    far = search_blend(model, sequences, steps=4, rate=50)
    assert all(LOWEST <= weight <= HIGHEST for weight in far.weights.values())
    assert far.plan  # can be pinned


def test_the_model_is_left_alone(sequences):
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    search_blend(model, sequences, steps=2)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
