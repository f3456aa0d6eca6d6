"""A preview is what the plan makes of the recorded routing: the weights of the run it stands for."""

import dataclasses
import random

import numpy as np
import pytest
from tiny_models import ROUTERS, make_tiny_studio, sites_before_attention
from tolerances import ONE_PASS

from lmoe_studio.errors import BankMismatchError, PlanError
from lmoe_studio.routing.plan import Override, RegexMatch, RoutingPlan, Span, Steps, TextMatch
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.tracing.files import load_trace, save_trace

PROMPT, NEW, LAYERS = "SELECT 日本 🎉 12", 6, 3
EXPERTS = ("sql", "prose", "math")
KINDS = [
    *ROUTERS,
    RouterSettings(kind="blend", blend={"sql": 1.5, "math": -0.5}),
    RouterSettings(scope="module", activation="sigmoid", top_k=2),
    RouterSettings(scope="shared", top_k=1, temperature=2),
    RouterSettings(activation="sigmoid", top_k=1, renormalise=False),
]
PLANS_EACH = 16


def drawn_plan(draw: random.Random) -> RoutingPlan:
    return RoutingPlan([drawn_override(draw) for _ in range(draw.randint(1, 4))])


def drawn_override(draw):
    some = draw.sample(EXPERTS, draw.randint(1, 3))
    raw = draw.random() < 0.5
    low = -1 if raw else 0.1
    weights = {name: round(draw.uniform(low, 3), 2) for name in some}
    how = {"renormalise": not raw}
    scope = {
        "tokens": draw.choice(SCOPES),
        "layers": draw.choice([None, None, [0], [1, 2], Span(start=1)]),
        "strength": draw.choice([1, 1, 0.5, 0.3]),
    }
    made = draw.choice(
        [
            lambda: Override.pin(weights, **how, **scope),
            lambda: Override.solo(some[0], **scope),
            lambda: Override.ban(*some, **how, **scope),
            lambda: Override.boost(weights, **how, **scope),
            lambda: Override.bias({name: draw.uniform(-4, 4) for name in some}, **scope),
            lambda: Override.temperature(draw.choice([0.3, 1, 2.5]), **scope),
            lambda: Override.top_k(draw.randint(1, 3), **how, **scope),
            lambda: Override.uniform(*some, **scope),
            lambda: Override.bypass(**scope),
        ]
    )
    return made()


SCOPES = [
    "all", "all", "all", "prompt", "generated", [0, 3, 9], range(2, 30), Span(start=7),
    Steps(steps=[0, 2]), Steps(steps=Span(start=1)), TextMatch(text="日本"), TextMatch(text="E"),
    RegexMatch(regex=r"\p{L}+"), RegexMatch(regex=r"(?<=SEL)\w"), RegexMatch(regex=r"[^a-z]{2}"),
]  # fmt: skip


@pytest.fixture(scope="module", params=KINDS, ids=str)
def studio(request):
    return make_tiny_studio(router=request.param)


def test_a_preview_of_the_plan_that_ran_is_what_ran(studio):
    draw = random.Random(str(studio.bank.router))
    plans = {f"{number}": drawn_plan(draw) for number in range(PLANS_EACH)}
    runs = studio.compare(PROMPT, plans, base=False, max_new_tokens=NEW, temperature=3).runs
    for name, plan in plans.items():
        trace = runs[name].trace
        np.testing.assert_allclose(
            studio.preview(trace, plan),
            trace.routing_weights,
            atol=1e-5,
            rtol=1e-5,
            err_msg=repr(plan),
        )


def test_a_preview_over_the_router_alone_is_what_will_run_where_nothing_before_it_changes(studio):
    alone = studio.trace(PROMPT)
    router = studio.bank.router  # a shared one reads the embeddings for all blocks
    everywhere = router.scope == "shared" or router.kind in ("uniform", "blend")
    sites = slice(None) if everywhere else sites_before_attention(alone)
    draw = random.Random(7)
    for plan in [drawn_plan(draw) for _ in range(8)]:
        ran = studio.trace(PROMPT, plan=plan).routing_weights
        np.testing.assert_allclose(
            studio.preview(alone, plan)[:, sites], ran[:, sites], err_msg=repr(plan), **ONE_PASS
        )


def test_a_preview_starts_from_the_router_and_not_from_the_plan_of_the_trace(studio):
    solo = RoutingPlan([Override.solo("prose")])
    steered = studio.trace(PROMPT, plan=solo)
    assert studio.preview(steered, RoutingPlan()) is steered.router_weights
    again = studio.preview(steered, RoutingPlan([Override.bypass(tokens=[0])]))
    assert not again[0].any()
    np.testing.assert_array_equal(again[1:], steered.router_weights[1:])


def test_a_preview_of_what_a_file_holds_is_that_of_the_trace(studio, tmp_path):
    plan = RoutingPlan([Override.temperature(0.5), Override.ban("sql", tokens=TextMatch(text="E"))])
    trace = studio.trace(PROMPT, plan=RoutingPlan([Override.solo("prose", layers=[1])]))
    for suffix in ("parquet", "safetensors"):
        again = load_trace(save_trace(trace, tmp_path / f"trace.{suffix}"))
        np.testing.assert_array_equal(studio.preview(again, plan), studio.preview(trace, plan))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bank": "another"}, "with another bank, another; loaded is random"),
        ({"experts": ("sql", "math", "prose")}, "other experts, sql, math, prose; loaded is sql"),
        ({"router": RouterSettings(top_k=1).model_dump_json()}, "another router"),
        ({"site_layers": (0, 1, 5)}, "other layers, 0, 1, 5; loaded is 0, 1, 2"),
        ({"router": None}, "earlier release.*trace the text again"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else "",
)
def test_a_trace_of_another_bank_is_refused(changes, named):
    studio = make_tiny_studio()
    trace = dataclasses.replace(studio.trace(PROMPT), **changes)
    with pytest.raises(BankMismatchError, match=named):
        studio.preview(trace, RoutingPlan([Override.solo("sql")]))


def test_a_plan_that_does_not_fit_the_bank_is_refused():
    studio = make_tiny_studio()
    with pytest.raises(PlanError, match="names no expert of this bank: 'sqll'"):
        studio.preview(studio.trace(PROMPT), RoutingPlan([Override.solo("sqll")]))
