"""The blend of a text: what a router that decides once gives after it, and the mean of any other."""

import numpy as np
import pytest
import torch
from tiny_models import ROUTERS, make_bank, make_tiny_base, make_tiny_studio, make_tiny_tokenizer
from tolerances import ONE_PASS

from lmoe_studio.errors import ContextLengthError, PlanError, TextError
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.settings import RouterSettings, Threshold
from lmoe_studio.routing.static import static_blends
from lmoe_studio.studio import Studio

PROMPT = "SELECT name FROM users"
WRITING = {"max_new_tokens": 12, "temperature": 1.0, "seed": 3}


def weights_of(plan, studio):
    """`[layer, expert]`"""
    blends = static_blends(plan, experts=studio.bank.expert_names, num_layers=3)
    return np.array([list(blend.values()) for blend in blends])


def assert_written_alike(one, other):
    assert one.token_ids == other.token_ids
    for name in ("routing_weights", "logprobs"):
        np.testing.assert_allclose(getattr(one.trace, name), getattr(other.trace, name), **ONE_PASS)


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_it_is_the_mean_over_tokens_or_what_follows_the_prompt(router):
    studio = make_tiny_studio(router=router)
    plan = studio.blend_for(PROMPT)
    trace = studio.trace(PROMPT)
    by_token = trace.router_weights
    expected = by_token.mean(axis=0) if router.pool == "token" else by_token[-1]
    layers = np.array(trace.site_layers)
    by_layer = [expected[layers == layer].mean(axis=0) for layer in range(3)]
    np.testing.assert_allclose(weights_of(plan, studio), by_layer, **ONE_PASS)
    assert RoutingPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("scope", ["layer", "shared", "tied"])
def test_a_router_that_decides_once_for_a_prompt_is_that_blend(scope):
    studio = make_tiny_studio(
        router=RouterSettings(pool="prompt", scope=scope, activation="identity")
    )
    with torch.no_grad():
        for tensor in studio.model.routers.parameters():
            tensor.mul_(0.3)  # identity: weights within what a plan can give
    plan = studio.blend_for(PROMPT)
    routed = studio.generate(PROMPT, **WRITING)
    assert_written_alike(studio.generate(PROMPT, plan=plan, **WRITING), routed)
    with studio.fold(plan):
        folded = studio.generate(PROMPT, **WRITING)
    assert_written_alike(folded, routed)


def test_a_mean_so_far_is_that_blend_after_the_prompt():
    studio = make_tiny_studio(router=RouterSettings(pool="prefix", top_k=2))
    after = [
        one.model_copy(update={"tokens": "generated"}) for one in studio.blend_for(PROMPT).overrides
    ]
    assert_written_alike(
        studio.generate(PROMPT, plan=after, **WRITING), studio.generate(PROMPT, **WRITING)
    )


def test_blocks_that_no_expert_changes_or_is_used_in_are_the_base_models():
    base = make_tiny_base()
    bank = make_bank(base)
    for expert in bank.experts:
        for name in [name for name in expert.adapter.factors if ".1." in name]:
            del expert.adapter.factors[name]
    for name in [name for name in bank.router_state if name.startswith("layers.1.")]:
        del bank.router_state[name]
    studio = Studio(base, make_tiny_tokenizer(), bank)
    plan = studio.blend_for(PROMPT)
    assert [one.operation for one in plan.overrides] == ["pin", "bypass", "pin"]
    with studio.fold(plan):
        assert studio.trace(PROMPT).routing_weights.shape[1] == 2


def test_experts_that_never_act_leave_the_base_model():
    router = RouterSettings(activation="sigmoid", threshold=Threshold(limit=0.9999, learned=False))
    studio = make_tiny_studio(router=router)
    plan = studio.blend_for(PROMPT)
    assert plan == RoutingPlan([Override.bypass(layers=[layer]) for layer in range(3)])


def test_a_blend_is_merged_as_it_is(tmp_path):
    studio = make_tiny_studio(router=RouterSettings(pool="prompt"))
    done = studio.merge(studio.blend_for(PROMPT), tmp_path / "merged")
    assert done.rank == 12
    assert done.max_difference < ONE_PASS["atol"] * 10


def test_weights_that_no_plan_can_give_are_refused_with_their_block():
    studio = make_tiny_studio(router=RouterSettings(pool="prompt", activation="identity"))
    with torch.no_grad():
        studio.model.routers[1].weight.mul_(100)
    with pytest.raises(PlanError, match=r"blend of block 1: .*weights lie between -1 and 4"):
        studio.blend_for(PROMPT)


def test_a_text_that_cannot_be_read_has_none():
    studio = make_tiny_studio()
    with pytest.raises(TextError, match="blank"):
        studio.blend_for("  ")
    with pytest.raises(ContextLengthError):
        studio.blend_for("x" * 500)
    with studio.fold(Override.uniform()), pytest.raises(PlanError, match="folded"):
        studio.blend_for(PROMPT)
