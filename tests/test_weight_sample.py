"""Other weights of the same shapes are noticed; the same in another type or quantised are not."""

import copy
import json
import warnings

import pytest
import torch
from tiny_models import make_bank, make_tiny_base, make_tiny_tokenizer

import lmoe_studio as lmoe
from lmoe_studio.base_models import identify, load_base
from lmoe_studio.errors import ConfigError, OtherWeightsWarning
from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.studio import Studio
from lmoe_studio.weight_sample import is_sample, same_weights, sample_weights

SAMPLE = sample_weights(make_tiny_base())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("then", [torch.bfloat16, torch.float16, torch.float32])
def test_the_same_weights_in_another_type_are_the_same(dtype, then):
    one, other = (sample_weights(make_tiny_base().to(kind)) for kind in (dtype, then))
    assert is_sample(one)
    assert same_weights(one, other)


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_the_same_weights_quantised_are_the_same_and_others_are_not(quantize, tmp_path):
    for seed in (0, 1):
        make_tiny_base(seed).save_pretrained(tmp_path / str(seed))
        make_tiny_tokenizer().save_pretrained(tmp_path / str(seed))
    same, other = (
        load_base(str(tmp_path / str(seed)), device="cpu", quantize=quantize).identity.weights
        for seed in (0, 1)
    )
    assert same_weights(same, SAMPLE)
    assert not same_weights(other, SAMPLE)


@pytest.mark.parametrize("layer", ["q_proj", "down_proj"])
def test_an_adapter_merged_into_some_layers_is_noticed(layer):
    merged = make_tiny_base()
    for name, parameter in merged.named_parameters():
        if layer in name:
            d_out, d_in = parameter.shape
            parameter.data += torch.randn(d_out, 2) @ torch.randn(2, d_in) / 100
    assert not same_weights(sample_weights(merged), SAMPLE)


def test_what_is_not_known_is_no_difference():
    assert same_weights(None, SAMPLE)
    assert same_weights(SAMPLE, None)
    assert sample_weights(copy.deepcopy(make_tiny_base()).to("meta")) is None


def test_a_bank_says_that_its_base_has_other_weights_and_runs(tmp_path):
    folder = save_bank(make_bank(make_tiny_base()), tmp_path / "bank")
    assert load_bank(folder).base.weights == SAMPLE
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Studio(make_tiny_base(), make_tiny_tokenizer(), folder)
    with pytest.warns(OtherWeightsWarning, match="are others in the same shapes"):
        studio = Studio(make_tiny_base(seed=1), make_tiny_tokenizer(), folder)
    assert studio.trace("a b").tokens
    with pytest.warns(OtherWeightsWarning):
        lmoe.detach(lmoe.attach(make_tiny_base(seed=1), load_bank(folder)).mixture.base)


def test_a_bank_from_before_is_read(tmp_path):
    bank = make_bank(make_tiny_base())
    assert identify(make_tiny_base(), "x").weights == SAMPLE
    bank = type(bank)(
        bank.name, type(bank.base)(bank.base.id, bank.base.fingerprint), bank.experts, bank.router,
        bank.router_state,
    )  # fmt: skip
    folder = save_bank(bank, tmp_path / "bank")
    assert load_bank(folder).base.weights is None


@pytest.mark.parametrize("text", ["", "AAAA", "é", "A" * 400, 7])
def test_what_is_no_sample_is_refused(text, tmp_path):
    from lmoe_studio.experts.files import _BankFile

    folder = save_bank(make_bank(make_tiny_base()), tmp_path / "bank")
    said = json.loads((folder / "bank.json").read_text())
    said["base"]["weights"] = text
    with pytest.raises(ConfigError, match="weights"):
        _BankFile.parse(said, source="bank.json")
