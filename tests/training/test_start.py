"""A run over another bank: its trained router goes on, or it is said that it does not."""

import pytest
import torch

from lmoe_studio.errors import ConfigError
from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.events import Message
from lmoe_studio.training.run import run_training
from lmoe_studio.training.start import starting_bank


@pytest.fixture
def over(base, changed, tmp_path):
    """Configs that start from a bank with a trained router."""
    bank = run_training(changed(steps=3), base=base)
    save_bank(bank, tmp_path / "start")

    def config(**options):
        values = changed(steps=1).model_dump(mode="json", exclude={"rank"})
        values |= {"bank": str(tmp_path / "start"), "out": str(tmp_path / "new")} | options
        return TrainingConfig.parse(values, source="config")

    return config


@pytest.mark.parametrize("mode", ["joint", "router", "experts"])
@pytest.mark.parametrize(
    "router", [{"temperature": 0.9}, {"top_k": 2}, {"top_k": 1, "renormalise": False}]
)
def test_another_temperature_or_top_k_keeps_a_trained_router(base, over, mode, router):
    said = []
    config = over(mode=mode, router=router)
    found = starting_bank(config, base.identity, on_progress=said.append)
    trained = load_bank(config.bank).router_state
    assert all(tensor.any() for name, tensor in trained.items() if name.endswith("weight"))
    assert found.router_state.keys() == trained.keys()
    assert all(torch.equal(found.router_state[name], trained[name]) for name in trained)
    assert (found.router, said) == (config.router, [])


def test_in_mode_experts_a_router_stays(base, over):
    config = over(mode="experts", router={"top_k": 1})
    bank, before = run_training(config, base=base), load_bank(config.bank).router_state
    assert all(torch.equal(bank.router_state[name], before[name]) for name in before)
    assert bank.router.top_k == 1


@pytest.mark.parametrize("router", [{"activation": "sigmoid"}, {"scope": "shared"}])
def test_a_router_of_another_make_is_not_thrown_away_silently(base, over, router):
    with pytest.raises(ConfigError, match=r"has (activation softmax|scope layer).*mode joint"):
        starting_bank(over(mode="experts", router=router), base.identity)
    for mode in ("joint", "router"):
        said = []
        run_training(over(mode=mode, router=router), said.append, fresh=True, base=base)
        texts = [event.text for event in said if isinstance(event, Message)]
        assert sum("is not taken over" in text for text in texts) == 1


def test_a_fixed_router_in_the_place_of_a_trained_one_is_said(base, over):
    said = []
    config = over(mode="experts", router={"kind": "uniform"})
    assert starting_bank(config, base.identity, on_progress=said.append).router_state == {}
    assert "is not taken over, as kind uniform is asked for: that one is fixed" in said[0]
