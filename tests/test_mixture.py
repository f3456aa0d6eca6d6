"""The invariants of the routed model, on a tiny random Llama."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from tiny_models import (
    ROUTERS,
    brute_force_logits,
    make_bank,
    make_tiny_base,
    peft_logits,
    with_loops,
)
from tolerances import ONE_PASS, of_gradient

from lmoe_studio.errors import AdapterError, BaseMismatchError, PlanError, TextError
from lmoe_studio.experts.layer import LoRABankLinear
from lmoe_studio.mixture.model import MixtureModel, MixtureOutput
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.registry import router_class
from lmoe_studio.routing.router import RouterSpec
from lmoe_studio.routing.settings import RouterSettings


def mixture(**options):
    base = make_tiny_base()
    return MixtureModel(base, make_bank(base, **options)).eval()


@torch.no_grad()
def run(model, ids, *args, **options):
    return model(ids, *args, **options)


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_weights_are_not_negative_and_sum_to_one(ids, router):
    routing = run(mixture(router=router), ids, record=True).routing
    assert (routing.weights >= 0).all() or router.activation == "identity"
    sums = router.activation == "softmax" and not router.threshold
    if sums and (router.renormalise or not router.top_k):
        levels = len(router.options["levels"]) if router.kind == "tree" else 1  # 1 each
        expected = torch.full(routing.weights.shape[:3], float(levels))
        torch.testing.assert_close(routing.weights.sum(-1), expected)
    if router.top_k:
        assert ((routing.weights > 0).sum(-1) <= router.top_k).all()


def test_one_expert_equals_the_plain_peft_lora(ids):
    model = mixture(ranks=(4,))
    torch.testing.assert_close(run(model, ids).logits, peft_logits(model.bank, ids, 0), **ONE_PASS)


@pytest.mark.parametrize("composition", ["output", "factor"])
@pytest.mark.parametrize("expert", [0, 1, 2])
def test_one_hot_weights_equal_that_peft_adapter(ids, composition, expert):
    model = mixture(composition=composition)
    plan = RoutingPlan([Override.solo(model.bank.expert_names[expert])])
    expected = peft_logits(model.bank, ids, expert)
    torch.testing.assert_close(run(model, ids, plan=plan).logits, expected, **ONE_PASS)


@pytest.mark.parametrize("composition", ["output", "factor"])
@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_concatenated_layers_equal_a_loop_over_experts(ids, router, composition):
    model = mixture(router=router, composition=composition)
    out = run(model, ids, record=True)
    expected = brute_force_logits(model.bank, ids, out.routing.weights, model.sites)
    torch.testing.assert_close(out.logits, expected, **ONE_PASS)


def test_mixed_ranks_and_missing_modules_equal_a_loop_over_experts(ids):
    model = mixture(ranks=(1, 7, 3), missing=[(0, "q_proj"), (2, "down_proj")])
    out = run(model, ids, record=True)
    expected = brute_force_logits(model.bank, ids, out.routing.weights, model.sites)
    torch.testing.assert_close(out.logits, expected, **ONE_PASS)


def test_factor_composition_differs_between_corners_and_refuses_mixed_ranks(ids):
    output, factor = mixture(), mixture(composition="factor")
    assert (run(output, ids).logits - run(factor, ids).logits).abs().max() > 0.01
    with pytest.raises(AdapterError, match="ranks 2, 4"):
        mixture(composition="factor", ranks=(2, 4))


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_cached_equals_uncached(ids, router):
    """However the prompt's five tokens are cut, and with the others one by one."""
    model = mixture(router=router)
    seq = ids.shape[1]
    steps = torch.arange(-5, seq - 5).clamp_min(-1).expand_as(ids)
    whole = run(model, ids, steps=steps, record=True)
    cuts = [[5, *range(6, seq + 1)], [3, 5, seq], [*range(1, seq + 1)]]
    for ends in cuts[:1] if model.reads_whole_prompts else cuts:
        parts, cache = [], None
        for here in map(slice, [0, *ends], ends):
            parts.append(run(
                model, ids[:, here], steps=steps[:, here], past_key_values=cache, use_cache=True,
                record=True,
            ))  # fmt: skip
            cache = parts[-1].past_key_values
        joined = MixtureOutput.join(parts, seq)
        torch.testing.assert_close(joined.logits, whole.logits, **ONE_PASS)
        torch.testing.assert_close(joined.routing.weights, whole.routing.weights, **ONE_PASS)
        for name, values in whole.routing.notes.items():
            torch.testing.assert_close(joined.routing.notes[name], values, **ONE_PASS)


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_the_gate_makes_a_routers_own_weights_of_its_logits_and_notes_to_the_bit(ids, router):
    model = mixture(router=router)
    routing = run(model, ids, record=True).routing
    made = router_class(router.kind)(RouterSpec(router, model.bank.expert_names, 1, {}))
    for site in range(len(model.sites)):
        # As they came: a vector's last numbers may round otherwise than its first.
        notes = {name: values[:, :, site].contiguous() for name, values in routing.notes.items()}
        found = made.gate(routing.logits[:, :, site].contiguous(), notes)
        if router.kind != "blend":  # its weights may be negative, and then are of no logits
            assert torch.equal(found, routing.router_weights[:, :, site])


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_what_comes_later_changes_no_routing(ids, router):
    """Except where a router says that it decides once for a whole prompt."""
    model = mixture(router=router)
    changed = torch.cat([ids[:, :6], (ids[:, 6:] + 1) % 50], dim=1)
    first, second = (run(model, each, record=True).routing.weights for each in (ids, changed))
    same = torch.equal(first[:, :6], second[:, :6])
    assert same != model.reads_whole_prompts or router.kind in ("uniform", "blend")


def test_a_prompt_that_is_routed_as_a_whole_is_not_read_in_parts(ids):
    model = mixture(router=RouterSettings(pool="prompt"))
    head = run(model, ids[:, :5], use_cache=True)
    with pytest.raises(TextError, match="a further part of one came"):
        run(model, ids[:, 5:], past_key_values=head.past_key_values, use_cache=True)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_batched_and_padded_equals_alone(ids, router, side):
    model = mixture(router=router)
    alone = run(model, ids[1:, :6], record=True)
    keep = slice(3, None) if side == "left" else slice(0, 6)
    batch, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    batch[0], mask[0] = ids[0], 1
    batch[1, keep], mask[1, keep] = ids[1, :6], 1
    out = run(model, batch, mask, record=True)
    torch.testing.assert_close(out.logits[1:, keep], alone.logits, **ONE_PASS)
    torch.testing.assert_close(out.routing.weights[1:, keep], alone.routing.weights, **ONE_PASS)


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_replaying_recorded_weights_gives_the_same_logits(ids, router):
    model = mixture(router=router)
    plan = RoutingPlan([Override.boost({"prose": 2.5}, layers=[1, 2])])
    out = run(model, ids, plan=plan, record=True)
    replayed = run(model, ids, routing_weights=out.routing.weights)
    torch.testing.assert_close(replayed.logits, out.logits, **ONE_PASS)


def test_an_empty_plan_and_strength_zero_are_bit_equal_to_no_plan(ids):
    model = mixture()
    expected = run(model, ids).logits
    for plan in (RoutingPlan(), RoutingPlan([Override.solo("sql", strength=0)])):
        assert torch.equal(run(model, ids, plan=plan).logits, expected)


def test_bypass_is_bit_equal_to_the_base_model(ids):
    expected = make_tiny_base()(ids).logits
    plan = RoutingPlan([Override.bypass()])
    assert torch.equal(run(mixture(), ids, plan=plan).logits, expected)


def test_each_row_of_a_batch_follows_its_own_plan(ids):
    model = mixture()
    same = ids[:1].expand(3, -1)
    plans = [RoutingPlan([Override.solo("sql")]), None, RoutingPlan([Override.bypass(layers=[0])])]
    together = run(model, same, plan=plans).logits
    for row, plan in enumerate(plans):
        alone = run(model, ids[:1], plan=plan).logits[0]
        torch.testing.assert_close(together[row], alone, **ONE_PASS)
    with pytest.raises(PlanError, match="3 plans came for a batch of 2 rows"):
        run(model, ids, plan=plans)


def test_an_override_reaches_only_its_layers_and_tokens(ids):
    model = mixture()
    plan = RoutingPlan([Override.solo("math", layers=[1], tokens=(2, 3))])
    plain = run(model, ids, record=True).routing
    routing = run(model, ids, plan=plan, record=True).routing
    touched = torch.zeros(plain.weights.shape[:3], dtype=torch.bool)
    touched[:, 2:4, 1] = True
    assert torch.equal(routing.weights[touched], torch.eye(3)[2].expand(4, 3))
    assert torch.equal(routing.weights[..., 0, :], plain.weights[..., 0, :])
    assert torch.equal(
        routing.weights, torch.where(touched[..., None], routing.weights, routing.router_weights)
    )


def test_contributions_are_the_norms_of_what_each_expert_added(ids):
    model = mixture(targets=("up_proj",))
    seen = {}
    for layer in (0, 1, 2):
        name = f"model.layers.{layer}.mlp.up_proj"
        model.bank_layers[name].register_forward_pre_hook(
            lambda module, args, layer=layer: seen.update({layer: args[0].detach()})
        )
    routing = run(model, ids, record=True, contributions=True).routing
    for layer, x in seen.items():
        for index, expert in enumerate(model.bank.experts):
            f = expert.adapter.factors[f"model.layers.{layer}.mlp.up_proj"]
            update = routing.weights[:, :, layer, index, None] * f.scale * (x @ f.a.T @ f.b.T)
            torch.testing.assert_close(
                routing.contributions[:, :, layer, index], update.norm(dim=-1), **ONE_PASS
            )


@pytest.mark.parametrize("scope", ["layer", "shared", "module"])
def test_gradients_under_checkpointing_equal_those_without(ids, scope):
    gradients = []
    for checkpointing in (False, True):
        model = mixture(router=RouterSettings(scope=scope)).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        out = model(ids, record=True)
        loss = out.logits.float().logsumexp(-1).mean() + out.routing.probs.square().mean()
        loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    assert any("routers" in name for name in plain)
    assert any("lora_b" in name for name in plain)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, **of_gradient(gradient))


@pytest.mark.parametrize("composition", ["output", "factor"])
def test_gradients_equal_those_of_a_loop_over_experts(ids, composition):
    model = mixture(composition=composition, missing=[(1, "k_proj")]).train()
    weights = run(model, ids, record=True).routing.weights.requires_grad_()
    model(ids, routing_weights=weights).logits.logsumexp(-1).mean().backward()
    own, weights.grad = weights.grad, None
    factors = [expert.adapter.factors for expert in model.bank.experts]
    for one in factors:
        for factor in one.values():
            factor.a.requires_grad_(), factor.b.requires_grad_()
    loops = with_loops(make_tiny_base(), model.bank, weights, model.sites)
    loops(ids).logits.logsumexp(-1).mean().backward()
    torch.testing.assert_close(own, weights.grad, **of_gradient(weights.grad))
    for name, layer in model.bank_layers.items():
        present = [one[name] for one in factors if name in one]
        rows = layer.source.lora_a.grad.split(layer.source.ranks)[layer.place]
        expected = torch.cat([factor.a.grad for factor in present])
        torch.testing.assert_close(rows, expected, **of_gradient(expected))
        expected = torch.cat([factor.b.grad for factor in present], dim=1)
        torch.testing.assert_close(layer.lora_b.grad, expected, **of_gradient(expected))


def test_layers_that_read_one_tensor_share_one_product_and_each_parameter_is_there_once(ids):
    model = mixture()
    block = "model.layers.1."
    sources = {name: layer.source for name, layer in model.bank_layers.items() if block in name}
    q, k, v = (sources[f"{block}self_attn.{name}_proj"] for name in "qkv")
    assert q is k is v
    assert sources[f"{block}mlp.gate_proj"] is sources[f"{block}mlp.up_proj"]
    assert len(set(sources.values())) == 4
    products = []
    for source in set(sources.values()):
        source._product = lambda x, inner=source._product: products.append(x) or inner(x)
    run(model, ids)
    assert len(products) == 4
    state = model.state_dict()
    places = [tensor.data_ptr() for name, tensor in state.items() if "lora_" in name]
    assert len(places) == len(set(places)) == 3 * (4 + 7)
    learned = [p for n, p in model.named_parameters() if "lora_" in n]
    assert sum(p.numel() for p in learned) == sum(
        expert.adapter.num_parameters for expert in model.bank.experts
    )


@pytest.mark.parametrize("scope", ["layer", "module"])
@pytest.mark.parametrize("composition", ["output", "factor"])
def test_a_layer_that_reads_something_else_after_all_is_given_its_own(ids, scope, composition):
    def move(module, args):
        return (args[0] * 0.5,)

    model = mixture(router=RouterSettings(scope=scope), composition=composition)
    name = "model.layers.1.self_attn.k_proj"
    model.bank_layers[name].register_forward_pre_hook(move)
    out = run(model, ids, record=True)
    loops = with_loops(make_tiny_base(), model.bank, out.routing.weights, model.sites)
    loops.get_submodule(name).register_forward_pre_hook(move)
    torch.testing.assert_close(out.logits, run(loops, ids).logits, **ONE_PASS)


def test_without_gradients_nothing_that_a_caller_holds_is_changed(ids):
    model = mixture()
    seen = []
    for layer in model.bank_layers.values():
        layer.register_forward_pre_hook(lambda _, args: seen.append((args[0], args[0].clone())))
    run(model, ids)
    assert all(torch.equal(now, then) for now, then in seen)


def test_only_experts_and_routers_learn():
    names = {name for name, p in mixture().named_parameters() if p.requires_grad}
    assert names
    assert all("lora_" in name or name.startswith("routers.") for name in names)


def test_bfloat16_autocast_routes_in_float32(ids):
    model = mixture()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = run(model, ids, record=True)
    assert out.routing.logits.dtype == torch.float32
    torch.testing.assert_close(out.logits.float(), run(model, ids).logits, atol=0.5, rtol=0.1)


def test_a_bfloat16_model_matches_float32_within_its_precision(ids):
    exact = run(mixture(), ids, record=True)
    base = make_tiny_base().bfloat16()
    model = MixtureModel(base, make_bank(make_tiny_base())).eval()
    assert {p.dtype for n, p in model.named_parameters() if "lora_" in n} == {torch.bfloat16}
    assert {p.dtype for p in model.routers.parameters()} == {torch.float32}
    out = run(model, ids, record=True)
    torch.testing.assert_close(out.routing.weights, exact.routing.weights, atol=0.1, rtol=0)


def test_detaching_leaves_the_base_as_it_was(ids):
    base = make_tiny_base()
    before, modules, state = base(ids).logits, list(base.modules()), dict(base.state_dict())
    model = MixtureModel(base, make_bank(base))
    run(model, ids)
    base = model.detach()
    assert all(new is old for new, old in zip(base.modules(), modules, strict=True))
    assert state.keys() == base.state_dict().keys()
    assert torch.equal(base(ids).logits, before)
    hooks = [h for m in base.modules() for h in (m._forward_hooks, m._forward_pre_hooks) if h]
    assert hooks == []


def test_nothing_of_a_forward_pass_outlives_it(ids):
    model = mixture()
    run(model, ids)
    assert model._current.call is None
    assert model._current.mixing is None
    with pytest.raises(IndexError):
        run(model, ids + 1000)  # outside the vocabulary
    assert model._current.call is None
    assert model._current.mixing is None
    with pytest.raises(IndexError):
        model.base(ids + 1000)
    assert model._current.call is None


def test_the_base_itself_runs_with_its_experts_until_they_are_detached(ids):
    model = mixture()
    routed = run(model, ids).logits
    assert torch.equal(model.base(ids).logits, routed)
    assert torch.equal(
        model.base(inputs_embeds=model.base.get_input_embeddings()(ids)).logits, routed
    )
    written = model.base.generate(ids, max_new_tokens=4, do_sample=False)
    assert torch.equal(written[:, ids.shape[1]], routed[:, -1].argmax(dim=-1))
    with pytest.raises(TextError, match="without input_ids"):
        model.base()
    assert torch.equal(model.detach()(ids).logits, make_tiny_base()(ids).logits)


def test_a_bank_of_another_base_is_refused_and_nothing_changes():
    base = make_tiny_base()
    bank = make_bank(base)
    other = make_tiny_base()
    other.set_submodule("model.layers.2.mlp.up_proj", torch.nn.Linear(32, 40, bias=False))
    with pytest.raises(BaseMismatchError, match=r"up_proj is 48×32; this base model's is 40×32"):
        MixtureModel(other, bank)
    assert not any(isinstance(module, LoRABankLinear) for module in other.modules())


def test_parameters_come_back_as_the_bank_they_came_from(ids):
    model = mixture(ranks=(2, 5, 3), missing=[(1, "k_proj")])
    again = MixtureModel(make_tiny_base(), model.to_bank()).eval()
    assert torch.equal(run(again, ids).logits, run(model, ids).logits)


@settings(max_examples=60, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    top_k=st.none() | st.integers(1, 5),
    activation=st.sampled_from(["softmax", "sigmoid"]),
    temperature=st.floats(0.1, 10),
    seed=st.integers(0, 2**16),
)
def test_any_bank_equals_a_loop_over_its_experts(ranks, top_k, activation, temperature, seed):
    router = RouterSettings(top_k=top_k, activation=activation, temperature=temperature)
    model = mixture(ranks=ranks, router=router, seed=seed, size=0.1)
    ids = torch.randint(3, 256, (1, 6), generator=torch.Generator().manual_seed(seed))
    out = run(model, ids, record=True)
    expected = brute_force_logits(model.bank, ids, out.routing.weights, model.sites)
    torch.testing.assert_close(out.logits, expected, **ONE_PASS)
