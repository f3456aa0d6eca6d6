"""Between what the composer holds and a RoutingPlan."""

import json

import pytest
from hypothesis import given, settings, strategies as st

from lmoe_studio.errors import PlanError
from lmoe_studio.routing.plan import Override, RoutingPlan, Span
from lmoe_studio.ui.plan_form import (
    plan_overrides,
    plan_text,
    read_form,
    read_picks,
    read_plan_text,
)

PLAN = RoutingPlan(
    [
        Override.solo("sql", layers=Span(start=10), tokens="generated"),
        Override.pin({"sql": 0.5, "french": -1}, renormalise=False, layers=[0, 2, 3]),
        Override.bias({"math": -3}, tokens={"text": "SELECT ${x}"}),
        Override.ban("drama", "prose", tokens={"regex": r"\d+"}, strength=0.5),
        Override.temperature(0.5, tokens={"steps": {"start": 2, "stop": 9}}),
        Override.top_k(2, tokens=range(4, 8)),
        Override.uniform(),
        Override.bypass(tokens=[3]),
    ]
)


def test_a_plan_comes_back_from_what_the_composer_gets():
    value = {"overrides": plan_overrides(PLAN), "signature": "ab-cd", "problem": ""}
    form = read_form(json.loads(json.dumps(value)))
    assert form.plan == PLAN
    assert form.signature == "ab-cd"


def test_a_plan_comes_back_from_its_text():
    assert read_plan_text(plan_text(PLAN)) == PLAN
    assert read_plan_text(plan_text(RoutingPlan())) == RoutingPlan()
    assert json.loads(plan_text(PLAN)) == json.loads(PLAN.to_json())


@pytest.mark.parametrize("read", [read_form, read_picks])
@pytest.mark.parametrize("sent", [None, "nonsense", 3, [], ""])
def test_a_plan_that_did_not_come_is_never_taken_for_none(read, sent):
    with pytest.raises(PlanError, match="did not arrive whole"):
        read(sent)


SOLO = [{"operation": "solo", "weights": {"sql": 1}}]


@pytest.mark.parametrize("made_for", ["demo", None, 3])
def test_a_plan_made_for_another_bank_is_refused(made_for):
    form = {"bank": made_for, "overrides": SOLO}
    with pytest.raises(PlanError, match=r"another bank|'demo'"):
        read_form(form, bank="mine")
    with pytest.raises(PlanError, match=r"another bank|'demo'"):
        read_picks({"bank": made_for, "b": SOLO}, bank="mine")


def test_a_plan_for_this_bank_and_the_router_alone_are_taken():
    assert read_form({"bank": "mine", "overrides": SOLO}, bank="mine").plan
    assert not read_form({"bank": "other", "overrides": []}, bank="mine").plan
    assert read_picks({"bank": "mine", "a": SOLO}, bank="mine")[0]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("x", "did not arrive whole"),
        ([], "did not arrive whole"),
        ({"overrides": 7}, "override"),
        ({"overrides": [7]}, "override 1"),
        ({"overrides": [{"operation": "solo"}]}, "needs at least one expert"),
        ({"overrides": [{"operation": "warp"}]}, "override 1"),
        ({"overrides": [{"operation": "pin", "weights": {"sql": None}}]}, "override 1"),
        ({"overrides": [{"operation": "pin", "weights": {"sql": 9}}]}, "between -1 and 4"),
        ({"overrides": [], "problem": "Override 1: expected numbers."}, "expected numbers"),
    ],
)
def test_what_a_browser_should_not_send_gets_a_sentence(value, sentence):
    with pytest.raises(PlanError, match=sentence):
        read_form(value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "none in the field"),
        ("{", "not JSON"),
        ("[1]", "expected an object"),
        ('{"version": 7}', "version 7"),
        ("x" * 300_000, "at most 200,000"),
        ("[" * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_text_that_is_no_plan_gets_a_sentence(text, sentence):
    with pytest.raises(PlanError, match=sentence):
        read_plan_text(text)


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["overrides", "operation", "weights", "tokens", "layers", "problem"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(_ANYTHING)
def test_nothing_that_a_browser_sends_is_more_than_a_plan_error(value):
    for sent in (value, {"overrides": value}, {"overrides": [value]}):
        try:
            read_form(sent)
        except PlanError as error:
            str(error).encode()
