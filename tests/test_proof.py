"""A bank is tried on its base before it is written: what an architecture gets wrong is found and named."""

import pytest
import torch
from tiny_models import make_bank, make_tiny_base
from torch import nn

from lmoe_studio.errors import AdapterError, BaseModelError
from lmoe_studio.experts.layer import LoRABankLinear
from lmoe_studio.proof import Proof

UP0 = "model.layers.0.mlp.up_proj"


def proven(base):
    bank = make_bank(base)
    proof = Proof.of(base)
    for expert in bank.experts:
        proof.of_expert(expert, bank.base)
    proof.of_bank(bank)


def test_a_sound_base_is_left_as_it_was():
    base = make_tiny_base()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    proven(base)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


def test_an_update_that_comes_out_wrong_is_named_by_its_layer(monkeypatch):
    mix = LoRABankLinear.forward
    monkeypatch.setattr(
        LoRABankLinear, "forward", lambda self, x: mix(self, x) * (1 + (self.name == UP0) * 1e-2)
    )
    with pytest.raises(AdapterError, match=f"otherwise than PEFT has it, first in {UP0}"):
        proven(make_tiny_base())


class ReadsItself(nn.Module):
    """As some state-space models do with a layer of theirs."""

    def __init__(self, mlp):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def forward(self, x):
        up = x @ self.up_proj.weight.T
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * up)


def test_a_layer_that_is_never_called_is_named():
    base = make_tiny_base()
    base.model.layers[0].mlp = ReadsItself(base.model.layers[0].mlp)
    with pytest.raises(AdapterError, match=f"never calls {UP0} .*--leave-out up_proj"):
        proven(base)


class Stops(nn.Linear):
    def forward(self, x):
        raise KeyError("no such thing")


def test_a_base_that_stops_in_the_middle_says_so_in_one_sentence():
    base = make_tiny_base()
    base.model.layers[1].mlp.up_proj = Stops(32, 48)
    with pytest.raises(BaseModelError, match="does not run \\(KeyError: 'no such thing'\\)"):
        proven(base)


def test_a_base_whose_tokens_see_those_after_them_is_refused():
    base = make_tiny_base()
    attention = base.model.layers[0].self_attn
    attend = attention.forward

    def sees_all(hidden_states, **more):
        out, weights = attend(hidden_states, **more)
        return out + hidden_states.mean(dim=1, keepdim=True), weights

    attention.forward = sees_all
    with pytest.raises(BaseModelError, match="lets tokens see those after them"):
        Proof.of(base)
