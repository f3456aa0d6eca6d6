"""A quantised base: the same bank, the same routing, over weights of 4 or 8 bits; on the CPU."""

import json
from types import SimpleNamespace

import pytest
import torch
from tapes import Tape
from tiny_models import make_bank, make_tiny_base, make_tiny_tokenizer
from transformers.integrations.bitsandbytes import dequantize_bnb_weight

from lmoe_studio import quantisation
from lmoe_studio.base_models import identify, load_base, over_same_weights
from lmoe_studio.errors import BaseModelError, PlanError
from lmoe_studio.experts.files import save_bank
from lmoe_studio.generation.replay import ReplayedSteps
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.quantisation import count_parameters, quantised_linears
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.studio import Studio

BITS = ["4bit", "8bit"]
EXACT = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny base model as people have one: a folder."""
    return saved(make_tiny_base(), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", params=BITS)
def quantize(request):
    return request.param


@pytest.fixture
def base(folder, quantize):
    return load_base(folder, device="cpu", quantize=quantize)


@pytest.fixture
def bank():
    return make_bank(make_tiny_base())


def saved(model, folder):
    model.save_pretrained(folder)
    make_tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def dequantised(model):
    """A model in full precision whose weights are what the quantised ones stand for."""
    plain = make_tiny_base()
    own = dict(model.named_modules())
    for name, module in plain.named_modules():
        if isinstance(module, torch.nn.Linear):
            layer = own[name]
            state = getattr(layer, "state", None)
            weight = dequantize_bnb_weight(layer.weight, state=state)
            module.weight.data = weight.to(torch.float32)
    return plain


def as_in_llm_int8(x, threshold=6.0):
    """Each token's activations rounded to 127 steps, but for columns with an outlier (LLM.int8())."""
    x = x.half().float()  # as it does first
    outlier = x.abs() >= threshold
    most = x.masked_fill(outlier, 0).abs().amax(dim=-1, keepdim=True)
    kept = outlier.flatten(0, -2).any(dim=0)
    return torch.where(kept, x, (x * 127 / most).round() * most / 127)


def gradients(model, ids):
    model.zero_grad()
    model(ids).logits.square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


# What is quantised, and what the base is called


def test_only_the_linear_layers_of_the_blocks_are_quantised(base):
    names = quantised_linears(base.model)
    assert len(names) == 3 * 7
    assert all(name.startswith("model.layers.") for name in names)
    kept = [p for n, p in base.model.named_parameters() if n.removesuffix(".weight") not in names]
    assert {p.dtype for p in kept} == {torch.float32}
    assert not any(p.requires_grad for p in base.model.parameters())
    assert not base.model.training


def test_the_output_layer_stays_in_full_precision_also_where_it_is_the_embeddings(
    tmp_path, quantize
):
    tied = make_tiny_base()
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    model = load_base(saved(tied, tmp_path), device="cpu", quantize=quantize).model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight.dtype == torch.float32
    assert len(quantised_linears(model)) == 3 * 7


def test_a_quantised_base_has_the_identity_of_the_base(base, folder):
    plain = load_base(folder, device="cpu")
    assert base.identity == plain.identity == identify(make_tiny_base(), folder)
    assert base.identity.linear_shapes == plain.identity.linear_shapes
    assert count_parameters(base.model) == count_parameters(plain.model)
    assert base.model.get_memory_footprint() < plain.model.get_memory_footprint()


# What it computes


@pytest.mark.parametrize(
    "router", [RouterSettings(), RouterSettings(scope="module")], ids=["layer", "module"]
)
@pytest.mark.parametrize("composition", ["output", "factor"])
@torch.no_grad()
def test_it_computes_what_the_dequantised_weights_and_the_same_bank_compute(
    base, ids, quantize, composition, router
):
    bank = make_bank(make_tiny_base(), composition=composition, router=router)
    plain = MixtureModel(dequantised(base.model), bank).eval()(ids, record=True)
    model = MixtureModel(base.model, bank)
    # In training mode 8-bit layers on a CPU are dequantised too, and do not round what they read.
    found = model.train(quantize == "8bit")(ids, record=True)
    torch.testing.assert_close(found.logits, plain.logits, **EXACT)
    torch.testing.assert_close(found.routing.weights, plain.routing.weights, **EXACT)


@pytest.mark.parametrize("spread", [1.0, 3.0], ids=["usual", "with outliers"])
@torch.no_grad()
def test_in_evaluation_mode_eight_bits_also_round_what_a_layer_reads(folder, spread):
    model = load_base(folder, device="cpu", quantize="8bit").model
    plain = dequantised(model)
    x = torch.randn(2, 9, 48, generator=torch.Generator().manual_seed(0)) * spread
    for name, layer in quantised_linears(model).items():
        part = x[..., : layer.in_features]
        exact, found = plain.get_submodule(name)(part), layer(part)
        rounded = plain.get_submodule(name)(as_in_llm_int8(part))
        assert (found - rounded).norm() < 1e-3 * exact.norm()
        assert 1e-3 * exact.norm() < (found - exact).norm() < 1e-2 * exact.norm()


def test_experts_and_routers_compute_in_the_models_dtype(folder, bank, quantize):
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        base = load_base(folder, device="cpu", dtype=name, quantize=quantize)
        model = MixtureModel(base.model, bank)
        layers = model.bank_layers.values()
        assert {p.dtype for layer in layers for p in (layer.lora_a, layer.lora_b)} == {dtype}
        assert {p.dtype for p in model.routers.parameters()} == {torch.float32}
        assert model(torch.tensor([[5, 6, 7]])).logits.dtype == dtype


@torch.no_grad()
def test_detaching_gives_the_base_back(base, bank, ids):
    before, layers = base.model(ids).logits, quantised_linears(base.model)
    model = MixtureModel(base.model, bank).eval()
    assert not torch.equal(model(ids).logits, before)
    model.detach()
    assert quantised_linears(base.model) == layers
    assert torch.equal(base.model(ids).logits, before)


def test_gradients_are_those_over_the_dequantised_weights_and_the_base_has_none(base, bank, ids):
    wanted = gradients(MixtureModel(dequantised(base.model), bank, dtype=torch.float32), ids)
    model = MixtureModel(base.model, bank, dtype=torch.float32)
    with torch.no_grad():
        model.eval()(ids)  # a weight repacked by this would let no gradient pass
    found = gradients(model.train(), ids)
    assert found.keys() == wanted.keys()
    assert all(".lora_" in name or name.startswith("routers.") for name in found)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], **EXACT)


@torch.no_grad()
def test_two_models_over_one_quantised_base_share_its_weights(base, bank, ids):
    expected = MixtureModel(over_same_weights(base.model), bank).eval()(ids).logits
    copies = [over_same_weights(base.model) for _ in range(2)]
    for copy in copies:
        assert quantised_linears(copy) == quantised_linears(base.model)
        assert torch.equal(MixtureModel(copy, bank).eval()(ids).logits, expected)


# Banks and the studio


def test_a_studio_over_it_traces_writes_and_says_so(folder, bank, tmp_path, quantize):
    save_bank(bank, tmp_path / "bank")
    studio = Studio.load(tmp_path / "bank", base=folder, device="cpu", quantize=quantize)
    plain = Studio.load(tmp_path / "bank", base=folder, device="cpu")
    assert studio.card.quantize == quantize
    assert plain.card.quantize is None
    assert studio.card.base_parameters == plain.card.base_parameters
    assert studio.trace("SELECT a").routing_weights.shape == (8, 3, 3)
    assert len(studio.generate("SELECT a", max_new_tokens=4).token_ids) == 4
    options = {"base": folder, "device": "cpu"}
    beside = Studio.load(tmp_path / "bank", **options, quantize=quantize, beside=studio)
    assert beside.base.model is studio.base.model
    assert (
        Studio.load(tmp_path / "bank", **options, beside=studio).base.model is not studio.base.model
    )


def test_neither_folding_nor_merging_goes_with_it(base, bank, tmp_path):
    studio = Studio(base.model, base.tokenizer, bank)
    with pytest.raises(PlanError, match=r"is quantised.* without `quantize`"):
        studio.fold(RoutingPlan([Override.solo("sql")])).__enter__()
    for full in (True, False):
        with pytest.raises(BaseModelError, match=r"is quantised.* without `quantize`"):
            studio.merge({"sql": 1.0}, tmp_path / "merged", full=full)
    assert not (tmp_path / "merged").exists()


@torch.no_grad()
def test_its_decoding_steps_are_not_captured(base, bank):
    studio = Studio(base.model, base.tokenizer, bank)
    cache = studio.model(torch.tensor([[5, 6]]), use_cache=True).past_key_values
    padding = torch.zeros(1, 2, dtype=torch.bool)
    options = {"record": False, "contributions": False, "replayable": Tape}
    assert ReplayedSteps.over(studio.model, cache, padding, **options) is None


# Bases that come quantised


@torch.no_grad()
def test_a_base_that_comes_quantised_works_as_it_is(base, bank, ids, tmp_path, quantize):
    own = saved(base.model, tmp_path / "own")
    for asked in (None, quantize):
        found = load_base(own, device="cpu", quantize=asked)
        assert found.identity.fingerprint == base.identity.fingerprint
        assert torch.equal(found.model(ids).logits, base.model(ids).logits)
        assert quantisation.is_as_asked(found.model, asked)
    other = next(bits for bits in BITS if bits != quantize)
    assert not quantisation.is_as_asked(found.model, other)
    with pytest.raises(BaseModelError, match=rf"already, with bitsandbytes, and not to {other}"):
        load_base(own, device="cpu", quantize=other)


def test_a_base_quantised_otherwise_is_refused_by_name(folder, tmp_path):
    own = saved(make_tiny_base(), tmp_path / "own")
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelError, match="is quantised with gptq and could not be loaded"):
        load_base(own, device="cpu")
    with pytest.raises(BaseModelError, match="already, with gptq, and not to 4bit"):
        load_base(own, device="cpu", quantize="4bit")
    model = load_base(folder, device="cpu").model
    model.config.quantization_config = {"quant_method": "awq"}
    with pytest.raises(BaseModelError, match="is quantised with awq, and experts"):
        quantisation.settle_quantised(model)


# What a person can get wrong


def test_an_unknown_value_is_told_before_anything_is_fetched():
    with pytest.raises(BaseModelError, match="'3bit' is not one of 4bit, 8bit"):
        load_base("no-such/model", quantize="3bit")  # type: ignore[arg-type]


def test_without_bitsandbytes_it_says_what_to_install(folder, monkeypatch):
    nothing = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    monkeypatch.setattr(quantisation, "importlib", nothing)
    with pytest.raises(BaseModelError, match=r"run `pip install 'lmoe-studio\[quantised\]'`"):
        load_base(folder, device="cpu", quantize="4bit")
    assert load_base(folder, device="cpu").model is not None


def test_the_commands_take_it(lmoe, folder, bank, tmp_path):
    save_bank(bank, tmp_path / "bank")
    options = ["--bank", tmp_path / "bank", "--base", folder, "--device", "cpu"]
    code, out, err = lmoe("trace", "--text", "SELECT", *options, "--quantize", "8bit")
    assert (code, "top expert" in out) == (0, True), err
    code, _, err = lmoe("trace", "--text", "SELECT", *options, "--quantize", "3bit")
    assert code == 2
    assert "'3bit' is not one of" in err


def test_an_8bit_layer_has_its_weight_before_two_threads_can_ask_for_it(folder):
    """bitsandbytes would move it on first use; done twice, the layer has none."""
    base = load_base(folder, device="cpu", quantize="8bit")
    for layer in quantised_linears(base.model).values():
        assert layer.weight.CB is None
        assert layer.state.CB is not None
