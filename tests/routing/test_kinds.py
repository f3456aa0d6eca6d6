"""What is particular to each kind of router that has options of its own."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings, strategies as st
from tiny_models import make_bank, make_tiny_base

from lmoe_studio.errors import BankError, ConfigError
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.apply import compile_plans
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.registry import router_class
from lmoe_studio.routing.router import Reading, RouterSpec, TokenBatch
from lmoe_studio.routing.settings import RouterSettings

EXPERTS = ("sql", "prose", "math", "french")
TYPES = {
    "types": [
        {"name": "asked", "tokens": "prompt", "experts": ["sql", "prose"]},
        {"name": "said", "tokens": "generated", "experts": ["prose", "math"]},
    ]
}
LEVELS = [{"experts": ["math", "sql"]}, {"experts": ["french", "prose"]}]
TREE = {"levels": LEVELS}
NEW = [
    RouterSettings(kind="mlp"),
    RouterSettings(kind="mlp", options={"form": "relu"}, activation="sigmoid"),
    RouterSettings(kind="mlp", options={"form": "relu", "width": 5}, activation="identity"),
    RouterSettings(kind="typed", options=TYPES),
    RouterSettings(kind="tree", options=TREE),
    RouterSettings(kind="tree", options=TREE | {"gate": "cosine"}, temperature=0.1),
    RouterSettings(kind="knn"),
    RouterSettings(kind="pre", scope="shared"),
]


CLOSED = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1], [1, 0, 0, 1]]]) == 1
"""What TYPES forbid the tokens of `reading`."""


def make(settings, state=None, d_in=6):
    return router_class(settings.kind)(RouterSpec(settings, EXPERTS, d_in, state or {}))


def reading(d_in=6, seq=5):
    generator = torch.Generator().manual_seed(3)
    ids = torch.arange(seq)[None] % d_in
    steps = torch.tensor([[-1, -1, -1, 0, 1]])
    types = torch.tensor([[1, 1, 0, 2, 2]])
    tokens = TokenBatch(ids, torch.arange(seq)[None], torch.ones_like(ids).bool(), steps, types)
    return Reading(torch.randn(1, seq, d_in, generator=generator), tokens)


def drawn(settings, d_in=6):
    """Tensors such as training could leave behind."""
    generator = torch.Generator().manual_seed(1)
    new = make(settings, d_in=d_in).state_dict()
    return {
        name: torch.randn(tensor.shape, generator=generator) * 0.3
        for name, tensor in new.items()
        if name in router_class(settings.kind).saved_shapes(settings, len(EXPERTS), d_in)
    }


@pytest.mark.parametrize("settings", NEW, ids=str)
def test_a_new_router_is_even_over_what_it_may_use(settings):
    output = make(settings)(reading())
    for token, probs in enumerate(output.probs[0]):
        used = probs[probs != 0]
        torch.testing.assert_close(used, used[:1].expand_as(used), atol=1e-6, rtol=0)
        allowed = 2 if settings.kind == "typed" and token != 2 else 4
        assert len(used) == allowed
    if settings.kind == "mlp" and settings.activation == "identity":
        torch.testing.assert_close(output.weights, torch.full((1, 5, 4), 0.25))


@pytest.mark.parametrize("settings", NEW, ids=str)
def test_what_is_saved_has_the_shapes_that_are_announced(settings):
    memory = {"keys": torch.ones(3, 6), "labels": torch.arange(3), "sources": torch.arange(3)}
    router = make(settings, memory if settings.kind == "knn" else {})
    shapes = router.saved_shapes(settings, len(EXPERTS), 6)
    saved = router.saved()
    assert saved.keys() == shapes.keys()
    for name, shape in shapes.items():
        assert len(shape) == saved[name].ndim
        assert all(n in (None, m) for n, m in zip(shape, saved[name].shape, strict=True))
    unknown = router.saved_shapes(settings, len(EXPERTS), None)
    assert unknown.keys() == shapes.keys()
    again = make(settings, {name: one.float() for name, one in saved.items()})
    torch.testing.assert_close(again.saved(), saved, rtol=0, atol=0)


@pytest.mark.parametrize("settings", [one for one in NEW if one.kind != "knn"], ids=str)
def test_every_parameter_learns_and_every_gradient_is_finite(settings):
    for state in ({}, drawn(settings)):
        router = make(settings, state)
        output = router(reading())
        (output.weights * torch.rand_like(output.weights)).sum().backward()
        gradients = {name: one.grad for name, one in router.named_parameters()}
        assert all(one is not None and one.isfinite().all() for one in gradients.values())
    still = {name for name, one in gradients.items() if not one.any()}
    assert not still


@pytest.mark.parametrize("settings", NEW, ids=str)
def test_the_gate_repeats_the_weights_to_the_bit(settings):
    state = {} if settings.kind == "knn" else drawn(settings)
    output = make(settings, state)(reading())
    assert torch.equal(output.gate(output.logits), output.weights)
    assert output.logits.isfinite().all()


def test_no_bias_opens_a_closed_door():
    settings = RouterSettings(kind="typed", options=TYPES)
    output = make(settings, drawn(settings))(reading())
    for bias in (0, 5, -5, 1e6):
        for strength in (0.5, 1.0):
            changed = torch.lerp(output.logits, output.logits + bias * torch.eye(4)[2], strength)
            weights = output.gate(changed)
            assert (weights[CLOSED] == 0).all()
            torch.testing.assert_close(weights.sum(-1), torch.ones(1, 5))


def plans():
    """Changes of logits of any size, with strengths, and of weights after them."""
    amounts = st.dictionaries(st.sampled_from(EXPERTS), st.floats(-20, 20, width=32), min_size=1)
    factors = st.dictionaries(st.sampled_from(EXPERTS), st.floats(0, 4, width=32), min_size=1)
    strengths = st.sampled_from([0.0, 0.3, 1.0])
    return st.lists(
        st.builds(lambda given, s: Override.bias(given, strength=s), amounts, strengths)
        | st.builds(lambda value: Override.temperature(value), st.floats(0.125, 8, width=32))
        | st.builds(lambda given, s: Override.boost(given, strength=s), factors, strengths)
        | st.builds(
            lambda name, s: Override.ban(name, strength=s), st.sampled_from(EXPERTS), strengths
        )
        | st.builds(lambda count: Override.top_k(count), st.integers(1, 4)),
        max_size=4,
    ).map(RoutingPlan)


@cache
def trained(kind):
    chosen = next(one for one in NEW if one.kind == kind)
    return make(chosen, drawn(chosen)), reading()


@settings(max_examples=500, deadline=None)
@given(plan=plans(), kind=st.sampled_from(["mlp", "typed", "tree", "pre"]))
def test_no_plan_that_leaves_the_router_a_say_gives_anything_but_sound_weights(plan, kind):
    router, read = trained(kind)
    output = router(read)
    compiled = compile_plans([plan], experts=EXPERTS, num_layers=1, tokens=read.tokens)
    weights = output.weights if compiled is None else compiled.apply(0, output)
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    if kind == "typed":
        assert (weights[CLOSED] == 0).all()
    if all(one.strength == 0 for one in plan.overrides):
        assert torch.equal(weights, output.weights)


def test_a_branch_that_a_plan_closes_sends_its_tokens_elsewhere():
    settings = RouterSettings(kind="tree", options=TREE)
    output = make(settings, drawn(settings))(reading())
    top, leaves = output.weights[..., [2, 0]], output.weights[..., [3, 1]]
    torch.testing.assert_close(top.sum(-1), torch.ones(1, 5))
    torch.testing.assert_close(leaves.sum(-1), torch.ones(1, 5))
    closed = output.logits - 1e4 * torch.eye(4)[2]
    weights = output.gate(closed)
    torch.testing.assert_close(weights[..., 2], torch.zeros(1, 5))
    torch.testing.assert_close(weights[..., 0], torch.ones(1, 5))
    torch.testing.assert_close(weights[..., [3, 1]].sum(-1), torch.ones(1, 5))


def test_a_tree_notes_the_experts_of_the_heaviest_path():
    settings = RouterSettings(kind="tree", options=TREE)
    output = make(settings, drawn(settings))(reading())
    top, leaf = output.notes["path"].unbind(-1)
    assert set(top.flatten().tolist()) <= {2, 0}
    assert set(leaf.flatten().tolist()) <= {3, 1}
    share = output.notes["path_weight"]
    for node in (top, leaf):  # a node on a path has at least that path's share
        assert (output.weights.gather(-1, node[..., None]) >= share - 1e-6).all()


def test_neighbours_are_shown_with_their_sources():
    keys = torch.eye(6)[:5] * 6**0.5
    state = {"keys": keys, "labels": torch.tensor([0, 1, 2, 3, 3]), "sources": torch.arange(5) + 10}
    settings = RouterSettings(kind="knn", options={"k": 2, "temperature": 1.5})
    read = reading()
    output = make(settings, state)(read)
    normal = read.hidden * read.shrink
    distances = (normal[:, :, None] - keys).square().sum(-1)
    near = distances.topk(3, largest=False)
    assert torch.equal(output.notes["neighbour"], near.indices + 10)
    torch.testing.assert_close(output.notes["neighbour_distance"], near.values)
    shares = (-near.values[..., :2] / 1.5).softmax(-1)
    expected = torch.zeros(1, 5, 4).scatter_add(-1, state["labels"][near.indices[..., :2]], shares)
    torch.testing.assert_close(output.weights, expected, atol=1e-6, rtol=1e-5)


def test_routes_from_ids_do_not_look_at_states():
    settings = RouterSettings(kind="pre", scope="shared")
    router, read = make(settings, drawn(settings)), reading()
    other = Reading(read.hidden * 7 + 1, read.tokens)
    assert torch.equal(router(read).logits, router(other).logits)
    part = Reading(read.hidden[:, :3], read.tokens.part(slice(0, 3)))
    first = router(part)
    rest = Reading(read.hidden[:, 3:], read.tokens.part(slice(3, None)), past=dict(first.keep))
    torch.testing.assert_close(
        torch.cat([first.logits, router(rest).logits], 1), router(read).logits, atol=1e-5, rtol=1e-5
    )


def test_a_router_and_its_bank_take_part_in_a_whole_pass():
    base = make_tiny_base()
    router = RouterSettings(
        kind="tree", options={"levels": [{"experts": ["sql", "prose"]}, {"experts": ["math"]}]}
    )
    bank = replace(make_bank(base, router=router), router_state={})
    model = MixtureModel(base, bank, new_routers=True).eval()
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        closed = RoutingPlan([Override.bias({"sql": -20})])
        weights = model(ids, plan=closed, record=True).routing.weights
    torch.testing.assert_close(
        weights, torch.tensor([0.0, 1.0, 1.0]).expand_as(weights), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "typed"}, "types: Field required|types"),
        ({"kind": "typed", "options": {"types": []}}, "types: .*at least 1"),
        (
            {"kind": "typed", "options": {"types": [{"name": "a", "tokens": "all"}] * 2}},
            "two types are called 'a'",
        ),
        ({"kind": "typed", "options": {"types": [{"name": "a", "tokens": []}]}}, "claims no token"),
        ({"kind": "tree", "options": {"levels": []}}, "levels: .*at least 1"),
        (
            {"kind": "tree", "options": {"levels": [LEVELS[0], LEVELS[0]]}},
            "expert 'math' stands in the tree twice",
        ),
        (
            {"kind": "tree", "options": {"levels": [{"experts": ["a"], "fan_out": 2}]}},
            "a fan-out of 2 needs as many experts, not 1",
        ),
        ({"kind": "tree", "options": TREE, "top_k": 2}, "tree.*top_k"),
        ({"kind": "tree", "options": TREE, "pool": "prefix"}, "tree.*pool"),
        ({"kind": "tree", "options": TREE, "activation": "sigmoid"}, "tree.*activation"),
        ({"kind": "tree", "options": TREE, "threshold": {}}, "tree.*threshold"),
        ({"kind": "knn", "scope": "module"}, "knn.*scope"),
        ({"kind": "knn", "options": {"k": 0}}, "k: "),
        ({"kind": "pre"}, "pre.*scope is 'shared'"),
        (
            {"kind": "pre", "scope": "shared", "options": {"heads": 3}},
            "3 heads of an even width do not fit into a width of 64",
        ),
        ({"kind": "mlp", "options": {"form": "gelu"}}, "form: "),
        ({"kind": "mlp", "options": {"forms": "relu"}}, "unknown option 'forms'"),
    ],
)
def test_mistakes_are_one_sentence(values, message):
    with pytest.raises(ConfigError, match=message):
        RouterSettings.parse(values, source="router")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "typed",
            {"types": [{"name": "a", "tokens": "all", "experts": ["sqll"]}]},
            "no expert 'sqll'; did you mean 'sql'",
        ),
        ("tree", {"levels": [{"experts": ["sql", "prose"]}]}, "leaves out the expert 'math'"),
        (
            "tree",
            {"levels": [{"experts": ["sql", "prose", "math", "maths"]}]},
            "no expert 'maths'; did you mean 'math'",
        ),
    ],
)
def test_options_that_do_not_fit_the_bank_are_refused(kind, options, message):
    options_of = router_class(kind).Options
    with pytest.raises(ConfigError, match=message):
        router_class(kind).check_experts(options_of.model_validate(options), EXPERTS[:3])


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        ({"labels": torch.zeros(2), "sources": torch.zeros(3)}, {}, "not as many labels"),
        ({"labels": torch.tensor([0, 1, 9])}, {}, "a label that is no expert"),
        ({}, {"heads": 4}, "width 6 into 4 heads"),
    ],
)
def test_a_memory_that_does_not_fit_is_refused(state, options, message):
    whole = {"keys": torch.zeros(3, 6), "labels": torch.zeros(3), "sources": torch.zeros(3)}
    with pytest.raises(BankError, match=message):
        make(RouterSettings(kind="knn", options=options), whole | state)
