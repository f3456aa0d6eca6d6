"""What docs/peft.md says is equal: PEFT's ways to combine adapters, and its Arrow, in our terms."""

import math

import pytest
import torch
from peft import ArrowConfig, PeftModel
from peft.tuners.lora.arrow import ArrowLoraLinearLayer
from tiny_models import make_bank, make_tiny_base

from lmoe_studio.experts.adapter import write_adapter
from lmoe_studio.experts.merge import merge_blend
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.arrow import ArrowRouter, prototype
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.router import Reading, RouterSpec, TokenBatch
from lmoe_studio.routing.settings import RouterSettings

BLEND = {"sql": 0.7, "math": 0.3}
ANY = {"sql": 1.5, "prose": -0.5, "math": 2.0}


@torch.no_grad()
def peft(bank, blend, ids, folder, **options):
    """Logits of PEFT's `add_weighted_adapter` over the bank's experts."""
    for expert in bank.experts:
        write_adapter(expert.adapter, folder / expert.name, base="tiny")
    names = list(bank.expert_names)
    model = PeftModel.from_pretrained(make_tiny_base(), str(folder / names[0]), names[0])
    for name in names[1:]:
        model.load_adapter(str(folder / name), name)
    model.add_weighted_adapter(list(blend), list(blend.values()), "blended", **options)
    model.set_adapter("blended")
    return model.eval()(ids).logits


def _arrow_config():
    config = ArrowConfig(top_k=1, rng_seed=0)
    config.task_adapter_names = []  # PEFT's create_arrow_model fills them in
    return config


@torch.no_grad()
def ours(bank, blend, ids):
    plan = RoutingPlan([Override.pin(blend, renormalise=False)])
    return MixtureModel(make_tiny_base(), bank).eval()(ids, plan=plan).logits


@pytest.mark.parametrize("blend", [BLEND, ANY], ids=["shares", "any weights"])
@pytest.mark.parametrize("ranks", [(4, 4, 4), (2, 5, 3)], ids=["one rank", "several"])
def test_cat_is_a_blend_of_updates(tmp_path, ids, blend, ranks):
    bank = make_bank(make_tiny_base(), ranks=ranks)
    theirs = peft(bank, blend, ids, tmp_path, combination_type="cat")
    torch.testing.assert_close(theirs, ours(bank, blend, ids), atol=1e-4, rtol=0)


def test_svd_is_a_merge_of_lower_rank(tmp_path, ids):
    bank = make_bank(make_tiny_base(), size=0.1)
    theirs = peft(bank, BLEND, ids, tmp_path, combination_type="svd", svd_rank=5)
    merge_blend(bank, BLEND, out=tmp_path / "merged", rank=5)
    model = PeftModel.from_pretrained(make_tiny_base(), str(tmp_path / "merged")).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs, model(ids).logits, atol=2e-4, rtol=0)


def test_linear_is_a_blend_of_factors_under_the_roots_of_the_weights(tmp_path, ids):
    bank = make_bank(make_tiny_base(), composition="factor")
    theirs = peft(bank, BLEND, ids, tmp_path, combination_type="linear")
    roots = {name: math.sqrt(weight) for name, weight in BLEND.items()}
    torch.testing.assert_close(theirs, ours(bank, roots, ids), atol=1e-4, rtol=0)
    assert (theirs - ours(bank, BLEND, ids)).abs().max() > 0.01
    blended = ours(make_bank(make_tiny_base()), BLEND, ids)
    assert (theirs - blended).abs().max() > 0.01


def test_arrow_scores_are_pefts_over_the_size_of_the_input():
    generator = torch.Generator().manual_seed(0)
    factors = [(torch.randn(4, 16, generator=generator), torch.randn(12, 4, generator=generator)) for _ in range(3)]  # fmt: skip
    exact = torch.stack([prototype(a, b) for a, b in factors])
    hidden = torch.randn(2, 5, 16, generator=generator) * 7
    theirs = (hidden @ exact.T).abs()
    size = hidden.pow(2).mean(-1, keepdim=True).sqrt()
    settings = RouterSettings(kind="arrow", scope="module")
    router = ArrowRouter(RouterSpec(settings, ("a", "b", "c"), 16, {"prototypes": exact}))
    none = torch.zeros(2, 5, dtype=torch.long)
    tokens = TokenBatch(none, none, none == 0, none - 1)
    scores = router.score(Reading(hidden, tokens)).logits
    torch.testing.assert_close(scores * size, theirs)
    layer = ArrowLoraLinearLayer(16, _arrow_config())
    found = torch.stack(
        [layer.top_right_singular_vec_from_BA(a, b, iters=5000) for a, b in factors]
    )
    assert ((found * exact).sum(-1).abs() > 0.9999).all(), "with steps enough it finds the same"
