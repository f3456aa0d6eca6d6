"""Plans: what each override means, in what order, for which tokens; and what is refused."""

import json
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lmoe_studio.errors import PlanError
from lmoe_studio.routing.apply import compile_plans
from lmoe_studio.routing.check import check_plan, plan_notes
from lmoe_studio.routing.plan import Override, RegexMatch, RoutingPlan, Span, Steps, TextMatch
from lmoe_studio.routing.registry import router_class
from lmoe_studio.routing.router import (
    Reading,
    RouterOutput,
    RouterSpec,
    TokenBatch,
)
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.routing.settle import PlanRow
from lmoe_studio.routing.static import static_blends

EXPERTS = ("sql", "prose", "math", "french")
LAYERS = 3
ROWS, PROMPT, NEW = 3, 4, 3
ROUTER = RouterSettings()


def gate_of(router):
    spec = RouterSpec(router, EXPERTS, d_in=1, state={})
    return partial(router_class(router.kind)(spec).gate, notes={})


def router_output(router=ROUTER, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(ROWS, PROMPT + NEW, len(EXPERTS), generator=generator) * 2
    gate = gate_of(router)
    return RouterOutput(logits, gate(logits), gate(logits), gate)


def tokens():
    positions = torch.arange(PROMPT + NEW).expand(ROWS, -1)
    steps = (positions - PROMPT).clamp_min(-1)
    return TokenBatch(positions, positions, torch.ones_like(positions, dtype=torch.bool), steps)


def apply(plans, *, layer=1, router=ROUTER, seed=0):
    """The weights that plans make of a router's; one plan, or one a row."""
    plans = [plans] * ROWS if isinstance(plans, RoutingPlan) else plans
    output = router_output(router, seed)
    compiled = compile_plans(plans, experts=EXPERTS, num_layers=LAYERS, tokens=tokens())
    return output.weights if compiled is None else compiled.apply(layer, output)


def only(*overrides, **options):
    return apply(RoutingPlan(overrides), **options)


# What each operation means


def test_pin_scales_to_one_unless_told_otherwise():
    assert only(Override.pin({"sql": 3, "math": 1}))[0, 0].tolist() == [0.75, 0, 0.25, 0]
    raw = only(Override.pin({"sql": 3, "math": -1}, renormalise=False))
    assert raw[0, 0].tolist() == [3, 0, -1, 0]


def test_blend_mixes_towards_the_given_weights():
    before = router_output().weights
    after = only(Override.blend({"sql": 1}, strength=0.25))
    target = torch.tensor([1.0, 0, 0, 0])
    torch.testing.assert_close(after, before + 0.25 * (target - before))


def test_solo_uniform_and_bypass():
    assert (only(Override.solo("math")) == torch.tensor([0.0, 0, 1, 0])).all()
    assert (only(Override.uniform()) == 0.25).all()
    assert (only(Override.uniform("sql", "math")) == torch.tensor([0.5, 0, 0.5, 0])).all()
    assert (only(Override.bypass()) == 0).all()


def test_ban_gives_the_share_to_the_others_or_drops_it():
    before = router_output().weights
    after = only(Override.ban("sql"))
    expected = before * torch.tensor([0.0, 1, 1, 1])
    torch.testing.assert_close(after, expected / expected.sum(-1, keepdim=True))
    torch.testing.assert_close(only(Override.ban("sql", renormalise=False)), expected)


def test_boost_multiplies():
    before = router_output().weights
    expected = before * torch.tensor([1.0, 3, 1, 1])
    torch.testing.assert_close(only(Override.boost({"prose": 3}, renormalise=False)), expected)
    after = only(Override.boost({"prose": 3}))
    torch.testing.assert_close(after, expected / expected.sum(-1, keepdim=True))


@pytest.mark.parametrize("router", [ROUTER, RouterSettings(activation="sigmoid", top_k=2),
                                    RouterSettings(temperature=0.5, top_k=2)], ids=str)  # fmt: skip
def test_bias_and_temperature_go_through_the_routers_own_gate(router):
    logits = router_output(router).logits
    biased = logits + torch.tensor([0.0, 0, 2, 0])
    torch.testing.assert_close(
        only(Override.bias({"math": 2}), router=router), gate_of(router)(biased)
    )
    torch.testing.assert_close(
        only(Override.temperature(0.5), router=router), gate_of(router)(logits / 0.5)
    )


def test_top_k_keeps_the_largest():
    before = router_output().weights
    after = only(Override.top_k(2))
    assert ((after > 0).sum(-1) == 2).all()
    torch.testing.assert_close(after.sum(-1), before.sum(-1))
    assert (after.argmax(-1) == before.argmax(-1)).all()
    assert torch.equal(only(Override.top_k(9)), before)


def test_what_is_kept_of_negative_weights_is_scaled_by_their_magnitudes():
    pin = Override.pin({"sql": 2, "math": -1, "prose": 1}, renormalise=False)
    for kept in (Override.ban("prose"), Override.boost({"prose": 0})):
        torch.testing.assert_close(only(pin, kept)[0, 0], torch.tensor([8 / 3, 0, -4 / 3, 0]))
    pin = Override.pin({"sql": 2, "math": -1, "prose": 0.5}, renormalise=False)
    torch.testing.assert_close(
        only(pin, Override.top_k(2))[0, 0], torch.tensor([7 / 3, 0, -7 / 6, 0])
    )


@pytest.mark.parametrize("operation", [
    Override.bias({"sql": 2}, tokens=[1]), Override.temperature(0.5, tokens=[1]),
    Override.bias({"sql": 0}), Override.temperature(1),
])  # fmt: skip
def test_where_no_logit_changes_the_routers_weights_stay_to_the_last_bit(operation):
    """Also those that it would not make of its logits again: a blend's, which may be negative."""
    blend = RouterSettings(kind="blend", blend={"sql": 1.5, "math": -0.5})
    router = router_class(blend.kind)(RouterSpec(blend, experts=EXPERTS, d_in=1, state={}))
    output = router(Reading(torch.zeros(ROWS, PROMPT + NEW, 1), tokens()))
    plan = RoutingPlan([operation])
    compiled = compile_plans([plan] * ROWS, experts=EXPERTS, num_layers=LAYERS, tokens=tokens())
    assert compiled is not None
    weights = compiled.apply(1, output)
    inside = torch.zeros(PROMPT + NEW, dtype=torch.bool)
    inside[list(operation.tokens) if operation.tokens != "all" else []] = True
    assert torch.equal(weights[:, ~inside], output.weights[:, ~inside])
    assert (weights[:, inside] != output.weights[:, inside]).any(dim=-1).all()


# Order


def test_overrides_of_one_kind_apply_top_to_bottom():
    first = only(Override.solo("sql"), Override.boost({"math": 4}))
    assert (first == torch.tensor([1.0, 0, 0, 0])).all()
    second = only(Override.boost({"math": 4}), Override.solo("sql"))
    assert (second == torch.tensor([1.0, 0, 0, 0])).all()
    assert (only(Override.solo("sql"), Override.solo("math"))[..., 2] == 1).all()
    bias, cool = Override.bias({"sql": 2}), Override.temperature(0.5)
    logits = router_output().logits
    add = torch.tensor([2.0, 0, 0, 0])
    torch.testing.assert_close(only(bias, cool), ((logits + add) / 0.5).softmax(-1))
    torch.testing.assert_close(only(cool, bias), (logits / 0.5 + add).softmax(-1))


def test_logits_come_before_weights_so_that_a_ban_holds():
    ban, bias = Override.ban("sql"), Override.bias({"sql": 10})
    assert (only(ban, bias)[..., 0] == 0).all()
    assert torch.equal(only(ban, bias), only(bias, ban))


# Scope


def touched(**scope):
    changed = (only(Override.solo("sql", **scope)) != router_output().weights).any(-1)
    assert (changed == changed[0]).all()
    return changed[0].nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("all", [0, 1, 2, 3, 4, 5, 6]),
        ("prompt", [0, 1, 2, 3]),
        ("generated", [4, 5, 6]),
        ([2, 5], [2, 5]),
        (range(1, 3), [1, 2]),
        (Span(start=5), [5, 6]),
        ({"start": 0, "stop": 2}, [0, 1]),
        (Steps(steps=[0, 2]), [4, 6]),
        (Steps(steps=Span(start=1)), [5, 6]),
        ({"steps": {"start": 0, "stop": 2}}, [4, 5]),
    ],
)
def test_token_scopes(scope, expected):
    assert touched(tokens=scope) == expected


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(None, [0, 1, 2]), (1, [1]), ([0, 2], [0, 2]), (range(1, 3), [1, 2]), (Span(start=1), [1, 2])],
)
def test_layer_scopes(layers, expected):
    plan = RoutingPlan([Override.solo("sql", layers=layers)])
    before = router_output().weights
    assert [n for n in range(LAYERS) if not torch.equal(apply(plan, layer=n), before)] == expected


def test_a_token_left_without_weight_gets_the_base_model():
    weights = only(Override.ban(*EXPERTS))
    assert (weights == 0).all()
    router = RouterSettings(top_k=1)
    weights = only(Override.ban("sql"), router=router)
    alone = router_output(router).weights[..., 0] == 1
    assert (weights[alone] == 0).all()
    notes = list(plan_notes(RoutingPlan([Override.ban(*EXPERTS)]), experts=EXPERTS))
    assert notes == ["Override 1 (ban) bans every expert: its tokens get the base model."]


# Properties

NAMES = st.sampled_from(EXPERTS)
PLACES = st.lists(st.integers(0, 8), min_size=1, max_size=4) | st.builds(
    lambda start, more: Span(start=start, stop=start + more), st.integers(0, 6), st.integers(1, 4)
)
SCOPES = {
    "layers": st.none() | st.lists(st.integers(0, LAYERS - 1), min_size=1, max_size=3)
    | st.builds(Span, start=st.integers(0, LAYERS - 1)),
    "tokens": st.sampled_from(["all", "prompt", "generated"]) | PLACES
    | st.builds(lambda places: Steps(steps=places), PLACES),
    "strength": st.sampled_from([0.0, 0.25, 1.0]) | st.floats(0, 1),
}  # fmt: skip


def weights_between(low, high):
    return st.dictionaries(NAMES, st.floats(low, high, width=32), min_size=1, max_size=4)


def made(make, *arguments, **more):
    return st.builds(
        lambda args, scope: make(*args, **scope),
        st.tuples(*arguments),
        st.fixed_dictionaries(SCOPES | more),
    )


RAW = {"renormalise": st.just(False)}
EITHER = {"renormalise": st.booleans()}
some = weights_between(0.125, 4)
OVERRIDES = st.one_of(
    made(Override.pin, some),
    made(Override.pin, weights_between(-1, 4).filter(lambda w: any(w.values())), **RAW),
    made(Override.solo, NAMES),
    made(
        lambda names, **scope: Override.ban(*names, **scope), st.sets(NAMES, min_size=1), **EITHER
    ),
    made(Override.boost, weights_between(0, 4), **EITHER),
    made(Override.bias, weights_between(-20, 20)),
    made(Override.temperature, st.floats(0.01, 100)),
    made(Override.top_k, st.integers(1, 5), **EITHER),
    made(lambda names, **scope: Override.uniform(*names, **scope), st.sets(NAMES)),
    made(Override.bypass),
)
PLANS = st.lists(OVERRIDES, max_size=4).map(RoutingPlan)
SETTINGS = st.builds(
    RouterSettings,
    activation=st.sampled_from(["softmax", "sigmoid"]),
    temperature=st.sampled_from([0.5, 1.0]),
    top_k=st.sampled_from([None, 2]),
)


@settings(max_examples=800, deadline=None)
@given(plans=st.lists(st.none() | PLANS, min_size=ROWS, max_size=ROWS), router=SETTINGS)
def test_weights_are_finite_and_sum_as_they_should(plans, router):
    output = router_output(router)
    weights = apply(plans, router=router)
    assert weights.isfinite().all()
    assert (weights.abs() <= 16).all()
    for row, plan in enumerate(plans):
        overrides = plan.overrides if plan else ()
        raw = not all(
            o.renormalise for o in overrides if o.operation in ("pin", "ban", "boost", "top_k")
        )
        if raw or router.activation == "sigmoid":
            continue
        sums = weights[row].sum(-1)
        emptied = any(
            o.operation in ("bypass", "ban")
            or (o.operation == "boost" and min(o.weights.values()) < 1e-30)
            for o in overrides
        )
        if not emptied:  # nothing takes weight away
            torch.testing.assert_close(sums, output.weights[row].sum(-1), atol=2e-4, rtol=0)
        assert (sums <= 1 + 2e-4).all()
        assert (weights[row] >= 0).all()


@settings(max_examples=200, deadline=None)
@given(plan=PLANS, router=SETTINGS, word=st.sampled_from(["zzz", "a"]))
def test_a_plan_about_a_text_is_one_about_its_places_to_the_last_bit(plan, router, word):
    """And about a text that is not there, it is no plan."""
    about = [one.model_copy(update={"tokens": TextMatch(text=word)}) for one in plan.overrides]
    there = [one.model_copy(update={"tokens": (1, 3)}) for one in plan.overrides]
    settled = PlanRow(["b", "a", "b", "a"]).for_prompt(RoutingPlan(about))
    expected = router_output(router).weights if word == "zzz" else apply(
        RoutingPlan(there), router=router
    )  # fmt: skip
    assert torch.equal(apply(settled, router=router), expected)


@settings(max_examples=200, deadline=None)
@given(plans=st.lists(st.none() | PLANS, min_size=ROWS, max_size=ROWS), router=SETTINGS)
def test_room_for_every_number_changes_no_bit(plans, router):
    output = router_output(router)
    roomy = compile_plans(plans, experts=EXPERTS, num_layers=LAYERS, tokens=tokens(), roomy=True)
    found = output.weights if roomy is None else roomy.apply(1, output)
    assert torch.equal(found, apply(plans, router=router))


@settings(max_examples=500, deadline=None)
@given(plans=st.lists(st.none() | PLANS, min_size=ROWS, max_size=ROWS), router=SETTINGS)
def test_rows_of_a_batch_do_not_know_of_each_other(plans, router):
    together = apply(plans, router=router)
    for row, plan in enumerate(plans):
        alone = apply([None] * row + [plan] + [None] * (ROWS - row - 1), router=router)
        assert torch.equal(together[row], alone[row])


@settings(max_examples=500, deadline=None)
@given(plan=PLANS, router=SETTINGS, layer=st.integers(0, LAYERS - 1))
def test_a_plan_equals_its_overrides_one_after_the_other(plan, router, layer):
    """Worked out token by token, straight from the definition."""
    got = apply(plan, layer=layer, router=router)
    output = router_output(router)
    batch = tokens()
    for seq in range(PROMPT + NEW):
        z, w = output.logits[0, seq], output.weights[0, seq]
        place, step = int(batch.positions[0, seq]), int(batch.steps[0, seq])
        expected = by_hand(plan, z, w, layer, place, step, gate_of(router))
        torch.testing.assert_close(got[0, seq], expected, atol=1e-5, rtol=1e-4)


def by_hand(plan, z, w, layer, position, step, gate):
    holding = [o for o in plan.overrides if o.strength and holds(o, layer, position, step)]
    before = z
    for o in holding:
        named = torch.tensor([o.weights.get(name, 0.0) for name in EXPERTS])
        if o.operation == "bias":
            z = torch.lerp(z, z + named, o.strength)
        elif o.operation == "temperature":
            z = torch.lerp(z, z / o.value, o.strength)
    w = w if torch.equal(z, before) else gate(z)
    for o in holding:
        w = torch.lerp(w, changed(o, w), o.strength)
    return w


def changed(o, w):
    named = torch.tensor([o.weights.get(name, 0.0) for name in EXPERTS])
    match o.operation:
        case "pin":
            return named / named.sum() if o.renormalise else named
        case "solo":
            return named
        case "uniform":
            return named / named.sum() if o.weights else torch.full_like(w, 1 / len(w))
        case "bypass":
            return torch.zeros_like(w)
        case "ban" | "boost":
            new = w * torch.tensor([o.weights.get(name, 1.0) for name in EXPERTS])
        case "top_k":
            keep = w.abs().topk(min(int(o.value), len(w))).indices
            new = torch.zeros_like(w).scatter(-1, keep, w[keep])
            if o.value >= len(w):
                return w
        case _:
            return w
    if not o.renormalise:
        return new
    total = new.abs().sum()
    return new * (w.abs().sum() / total) if total >= 1e-20 else torch.zeros_like(w)


def holds(o, layer, position, step):
    if o.layers is not None and layer not in o.layers:
        return False
    match o.tokens:
        case "all":
            return True
        case "prompt":
            return step < 0
        case "generated":
            return step >= 0
        case Steps(steps=places):
            return step in places
        case places:
            return position in places


@settings(max_examples=400, deadline=None)
@given(plan=PLANS)
def test_json_round_trip_is_equal(plan):
    text = plan.to_json()
    again = RoutingPlan.from_json(text)
    assert again == plan
    assert again.to_json() == text
    assert json.loads(text)["version"] == 1
    assert eval(repr(plan)) == plan


def test_text_scopes_survive_json():
    plan = RoutingPlan([Override.solo("sql", tokens=TextMatch(text="SELECT é")),
                        Override.ban("sql", tokens={"regex": r"\d+"})])  # fmt: skip
    assert RoutingPlan.from_json(plan.to_json()) == plan
    assert plan.overrides[1].tokens == RegexMatch(regex=r"\d+")


def test_the_schema_is_json():
    schema = RoutingPlan.model_json_schema()
    assert "overrides" in schema["properties"]
    json.dumps(schema)


def test_strength_zero_and_the_empty_plan_are_no_plan():
    for plan in (RoutingPlan(), RoutingPlan([Override.solo("sql", strength=0)])):
        assert compile_plans([plan], experts=EXPERTS, num_layers=LAYERS, tokens=tokens()) is None
        assert not plan


# Mistakes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Override.pin({"sql": math.nan}), "between -1 and 4, got nan for sql"),
        (lambda: Override.pin({"sql": 5}), "between -1 and 4, got 5 for sql"),
        (lambda: Override.pin({"sql": 0}), "all weights are zero; for the base model use bypass"),
        (lambda: Override.pin({"sql": 1, "math": -1}), "needs renormalise off, got -1"),
        (lambda: Override.pin({}), "needs at least one expert"),
        (lambda: Override.boost({"sql": math.inf}), "between -1 and 4, got inf"),
        (lambda: Override.bias({"sql": math.nan}), "between -20 and 20, got nan"),
        (lambda: Override.temperature(0), "between 0.01 and 100, got 0"),
        (lambda: Override.temperature(math.nan), "between 0.01 and 100, got nan"),
        (lambda: Override.top_k(0), "from 1 up, got 0"),
        (lambda: Override.ban("sql", strength=math.nan), "strength"),
        (lambda: Override.ban("sql", strength=2), "strength: Input should be less than or equal"),
        (lambda: Override.ban("sql", layers=[]), "layers: the scope is empty"),
        (lambda: Override.ban("sql", tokens=[]), "tokens: the scope is empty"),
        (lambda: Override.ban("sql", tokens=Steps(steps=[])), "tokens: the scope is empty"),
        (lambda: Override.ban("sql", tokens=[-1]), "tokens"),
        (lambda: Override.ban("sql", tokens={"start": 5, "stop": 5}), "from 5 to 5 is empty"),
        (lambda: Override.ban("sql", tokens="promt"), "tokens"),
        (lambda: Override.ban("sql", tokens={"word": "x"}), "`start`, `steps`, `text` or `regex`"),
        (lambda: Override.ban("sql", tokens={"text": ""}), "tokens.text"),
        (lambda: Override.ban("sql", tokens={"regex": "("}), r"'\(' is no regular expression"),
        (lambda: Override.ban("sql", tokens={"regex": "(a|a)*$"}), "can take forever"),
        (lambda: Override.ban("sql", tokens={"regex": "x" * 201}), "at most 200 characters"),
        (lambda: Override.ban("sql", layer=[1]), "unknown option 'layer', did you mean 'layers'"),
    ],
)  # fmt: skip
def test_an_unsound_override_is_refused_in_one_sentence(make, message):
    with pytest.raises(PlanError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("Override (")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"is not JSON \(line 1, column 2"),
        ("[]", "expected an object with `overrides`, got a list"),
        ('{"version": 2}', "of version 2, and this release reads version 1"),
        ('{"overides": []}', "unknown option 'overides', did you mean 'overrides'"),
        ('{"overrides": [{"operation": "ban", "weights": {"sql": 0}}, {"operation": "solo"}]}',
         r"override 2 \(solo\): 'solo' needs at least one expert"),
        ('{"overrides": [{"operation": "pin", "weights": {"sql": NaN}}]}', r"override 1 \(pin\)"),
        ('{"overrides": [{"operation": "dance"}]}', r"override 1 \(dance\): operation"),
        ('{"overrides": ["solo"]}', "override 1: "),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "a number of thousands of digits"),
        ('{"overrides": [{"operation": "scale", "operation": "ban"}]}', "'operation' occurs twice"),
    ],
)  # fmt: skip
def test_an_unsound_file_is_refused_and_the_override_named(text, message):
    with pytest.raises(PlanError, match=message) as caught:
        RoutingPlan.from_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (Override.ban("sqll"), r"Override 2 \(ban\) names no expert.*'sqll'; did you mean 'sql'"),
        (Override.ban("sql", layers=[1, 9]), "names layer 9; this model has layers 0 to 2"),
        (Override.ban("sql", layers=Span(start=3)), "names layer 3"),
        (Override.ban("sql", tokens=[50]), "positions from 50 on, which this run of 40 tokens"),
        (Override.ban("sql", tokens=Steps(steps=Span(start=9))), "steps from 9 on.*8 new tokens"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_and_the_override_named(override, message):
    plan = RoutingPlan([Override.bypass(), override])
    with pytest.raises(PlanError, match=message):
        check_plan(plan, experts=EXPERTS, num_layers=LAYERS, length=40, new_tokens=8)


def test_a_text_scope_needs_the_text():
    with pytest.raises(PlanError, match="about the tokens' texts"):
        only(Override.ban("sql", tokens=TextMatch(text="x")))


# Plans that fix all weights


def test_a_plan_that_fixes_all_weights_is_a_blend():
    plan = RoutingPlan([
        Override.temperature(2), Override.pin({"sql": 3, "math": 1}),
        Override.solo("french", layers=[1]), Override.ban("math", layers=[2]),
    ])  # fmt: skip
    blends = static_blends(plan, experts=EXPERTS, num_layers=LAYERS)
    assert [[round(w, 6) for w in blend.values()] for blend in blends] == [
        [0.75, 0, 0.25, 0], [0, 0, 0, 1], [1, 0, 0, 0]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (Override.pin({"sql": 1}, tokens="generated"), r"Override 1 \(pin\) holds for some tokens"),
        (Override.pin({"sql": 1}, strength=0.5), "leaves weights to the router"),
        (Override.pin({"sql": 1}, layers=[0, 1]), "In layer 2 the plan leaves weights"),
        (Override.ban("sql"), "In layer 0 the plan leaves weights"),
        # These hold for a softmax that is not too sure of itself, but not for every router.
        (Override.ban("sql", "prose", "math"), "In layer 0 the plan leaves weights"),
        (Override.bias({"sql": 20}), "In layer 0 the plan leaves weights"),
    ],
)
def test_a_plan_that_depends_on_the_token_is_no_blend(override, message):
    with pytest.raises(PlanError, match=message):
        static_blends(RoutingPlan([override]), experts=EXPERTS, num_layers=LAYERS)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(OVERRIDES, max_size=2),
    st.sampled_from([Override.solo("sql"), Override.uniform("sql", "math"), Override.bypass()])
    | OVERRIDES,
    st.lists(OVERRIDES, max_size=2),
    SETTINGS,
)
def test_a_blend_is_what_every_router_comes_to(before, middle, after, router):
    every = [one.model_copy(update={"tokens": "all"}) for one in (*before, middle, *after)]
    plan = RoutingPlan(every)
    try:
        blends = static_blends(plan, experts=EXPERTS, num_layers=LAYERS)
    except PlanError:
        return
    for layer, blend in enumerate(blends):
        weights = apply(plan, layer=layer, router=router)
        expected = torch.tensor(list(blend.values())).expand_as(weights)
        torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("text", ['{"overrides": 7}', '{"overrides": null}', '{"overrides": "x"}'])
def test_overrides_that_are_no_list_are_refused(text):
    with pytest.raises(PlanError, match="The plan: overrides"):
        RoutingPlan.from_json(text)
