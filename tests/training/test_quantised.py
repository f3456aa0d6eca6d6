"""Experts are trained over a frozen quantised base, as in QLoRA."""

import pytest

from lmoe_studio.base_models import load_base
from lmoe_studio.errors import ConfigError
from lmoe_studio.experts.files import load_bank
from lmoe_studio.studio import Studio
from lmoe_studio.training.events import EvalDone, StepDone
from lmoe_studio.training.run import run_training


@pytest.fixture
def folder(base, tmp_path):
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_bank_learns_over_it_and_fits_the_base_in_full_precision(
    changed, folder, quantize, checkpointing
):
    events = []
    config = changed(base=folder, quantize=quantize, gradient_checkpointing=checkpointing)
    trained = run_training(config, events.append)
    losses = [event.language_loss for event in events if isinstance(event, StepDone)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    final = [event for event in events if isinstance(event, EvalDone)][-1]
    assert all(final.bank[name] < final.base[name] for name in ("vowels", "digits"))
    written = load_bank(config.out)
    assert written.training["config"]["quantize"] == quantize
    for over in (None, quantize):
        base = load_base(folder, device="cpu", quantize=over)
        studio = Studio(base.model, base.tokenizer, written)
        assert studio.trace("aeiou 123").routing_weights.shape[0] == 9
    assert trained.base.fingerprint == load_base(folder, device="cpu").identity.fingerprint


def test_an_unknown_value_is_refused_with_the_config(changed):
    with pytest.raises(ConfigError, match="quantize: Input should be '4bit' or '8bit', got '3bit'"):
        changed(quantize="3bit")
