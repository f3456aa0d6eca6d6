"""The routed model on the real SmolLM2, against PEFT, and the demo bank on fresh text."""

import numpy as np
import pytest
import torch
from held_out_texts import TEXTS
from peft import PeftModel

from lmoe_studio.base_models import load_base
from lmoe_studio.causal.token_losses import token_losses
from lmoe_studio.experts.files import load_bank
from lmoe_studio.experts.places import find_bank
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.studio import Studio

pytestmark = [pytest.mark.slow, pytest.mark.real]
EXACT = {"atol": 1e-4, "rtol": 0}
TEXT = "SELECT name FROM users WHERE id = 3;\nLa soupe est prête. def f(x): return x"


@pytest.fixture
def studio(demo) -> Studio:
    return demo


@pytest.fixture
def ids(studio) -> torch.Tensor:
    return studio.tokenizer(TEXT, return_tensors="pt").input_ids


@pytest.fixture(scope="module")
def peft() -> PeftModel:
    """Plain PEFT around a base of its own, with every expert of the demo bank loaded."""
    folder = find_bank("demo") / "experts"
    names = load_bank("demo").expert_names
    model = PeftModel.from_pretrained(
        load_base(device="cpu").model, str(folder / names[0]), names[0]
    )
    for name in names[1:]:
        model.load_adapter(str(folder / name), name)
    return model.eval()


@torch.no_grad()
def test_solo_equals_each_adapter_in_plain_peft(studio, peft, ids):
    for name in studio.bank.expert_names:
        peft.set_adapter(name)
        solo = studio.model(ids, plan=RoutingPlan([Override.solo(name)])).logits
        torch.testing.assert_close(solo, peft(ids).logits, **EXACT)


@torch.no_grad()
def test_a_bank_of_one_expert_equals_its_adapter_in_plain_peft(peft, ids):
    bank = load_bank("demo")
    one = type(bank)(bank.name, bank.base, bank.experts[1:2])  # a fresh router: one weight, 1
    model = MixtureModel(load_base(device="cpu").model, one, new_routers=True).eval()
    peft.set_adapter(one.expert_names[0])
    torch.testing.assert_close(model(ids).logits, peft(ids).logits, **EXACT)


@torch.no_grad()
def test_a_static_blend_equals_pefts_own_merged_adapter(studio, peft, ids):
    blend = {"sql": 0.5, "french": 0.3, "recipes": 0.2}
    peft.add_weighted_adapter(list(blend), list(blend.values()), "blended", "cat")
    peft.set_adapter("blended")
    plan = RoutingPlan([Override.blend(blend)])
    torch.testing.assert_close(studio.model(ids, plan=plan).logits, peft(ids).logits, **EXACT)


@torch.no_grad()
def test_bypass_is_bit_equal_to_the_base_model(studio, real_base_once, ids):
    plain = real_base_once.model(ids).logits
    plan = RoutingPlan([Override.bypass()])
    assert torch.equal(studio.model(ids, plan=plan).logits, plain)


@torch.no_grad()
def test_replaying_a_trace_gives_its_logits(studio, ids):
    plan = RoutingPlan([Override.boost({"french": 2}, tokens=range(5, 12))])
    trace = studio.trace(TEXT, plan=plan)
    weights = torch.from_numpy(trace.routing_weights)[None]
    replayed = studio.model(ids, routing_weights=weights).logits
    torch.testing.assert_close(replayed, studio.model(ids, plan=plan).logits, **EXACT)


@torch.no_grad()
def test_bfloat16_traces_match_float32_within_its_precision(studio):
    base = load_base(device="cpu", dtype="bfloat16")
    half = Studio(base.model, base.tokenizer, "demo")
    assert half.card.dtype == "bfloat16"
    exact, rough = studio.trace(TEXT), half.trace(TEXT)
    difference = np.abs(exact.routing_weights - rough.routing_weights)
    assert difference.mean() < 0.01
    assert np.quantile(difference, 0.99) < 0.1
    assert np.nanmean(np.abs(exact.logprobs - rough.logprobs)) < 0.1


def test_the_demo_bank_beats_the_base_on_fresh_text_of_every_skill(studio):
    for label, texts in TEXTS.items():
        ids = [studio.tokenizer(text).input_ids for text in texts]
        losses = token_losses(studio.model, ids, [None, RoutingPlan([Override.bypass()])])
        routed, base = np.concatenate(losses, axis=1).mean(1)
        print(f"{label:14} base {base:.3f}  bank {routed:.3f}")
        assert routed < base, label


def test_the_demo_bank_is_small_and_says_how_it_was_made():
    folder = find_bank("demo")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 16e6
    bank = load_bank("demo")
    assert bank.training is not None
    held_out = bank.training["held_out"]
    assert all(held_out["bank"][name] < held_out["base"][name] for name in bank.expert_names)
    card = (folder / "README.md").read_text()
    assert all(name in card for name in bank.expert_names)


def test_held_out_texts_cost_less_under_the_router_than_under_any_fixed_choice(studio):
    texts, labels = [found[0] for found in TEXTS.values()], list(TEXTS)
    table = studio.evaluate(texts, labels=labels, max_tokens=48).table()
    own = np.mean([table.loc[f"only {name}", name] for name in TEXTS])
    mean = table["mean"]
    assert mean["best expert per token"] < mean["best expert per text"]
    assert mean["router"] < mean["uniform"] < mean["base"]
    assert mean["router"] < own < min(mean[f"only {name}"] for name in TEXTS)
