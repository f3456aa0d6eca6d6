"""Each example trains, on a tiny base and a few texts, and the bank opens."""

from pathlib import Path

import pytest
import torch
from tiny_models import make_tiny_base, make_tiny_tokenizer

from lmoe_studio.base_models import BaseModel, identify
from lmoe_studio.experts.files import load_bank
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.presets import PRESETS
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.events import StepDone
from lmoe_studio.training.run import run_training

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "mechanisms").glob("*.yaml"))


@pytest.fixture(scope="module")
def base():
    model = make_tiny_base()
    return BaseModel(model, make_tiny_tokenizer(), identify(model, "tiny"))


def tiny(path, tmp_path):
    """The example's router, losses and skills, with texts of a few letters."""
    config = TrainingConfig.read(path)
    values = config.model_dump(mode="json")
    pairs = any("pairs" in str(source) for skill in config.skills for source in skill.train)
    for number, skill in enumerate(values["skills"]):
        file = tmp_path / f"{number}.csv"
        rows = [f"{'abcdefgh'[number] * 10}{row}" for row in range(4)]
        lines = ["prompt,response", *(f"{row},{row}" for row in rows)] if pairs else ["text", *rows]
        file.write_text("\n".join(lines))
        skill |= {"train": [str(file)], "held_out": []}
    few = {"steps": 3, "batch_size": 2, "sequence_length": 32, "held_out_sequences": 1}
    values |= few | {"base": "tiny", "out": str(tmp_path / "bank"), "device": "cpu", "rank": 2}
    return TrainingConfig.parse(values, source=str(path))


def test_there_is_an_example_of_each_preset_that_learns():
    assert {path.stem for path in EXAMPLES} >= set(PRESETS) - {"rtd"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_trains(path, base, tmp_path):
    config, steps = tiny(path, tmp_path), []
    run_training(config, lambda e: steps.append(e) if isinstance(e, StepDone) else None, base=base)
    assert [event.step for event in steps] == [1, 2, 3]
    bank = load_bank(config.out)
    assert bank.router == config.router
    learned = [name for name, tensor in bank.router_state.items() if tensor.abs().sum() > 0]
    assert learned
    model = MixtureModel(base.model, bank)
    with torch.no_grad():
        out = model(torch.randint(3, 200, (2, 9)), record=True)
    assert out.logits.isfinite().all()
    assert out.routing.weights.isfinite().all()
    model.detach()
