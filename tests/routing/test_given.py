"""Whatever people have at hand for a plan, its places and its weights: the same plan, or a sentence."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from lmoe_studio.errors import PlanError
from lmoe_studio.routing.check import check_plan
from lmoe_studio.routing.given import as_blend, as_plan, named_plans
from lmoe_studio.routing.plan import Override, RegexMatch, RoutingPlan, Span, Steps, TextMatch

SQL = Override.solo("sql", layers=[1, 2])
PLAN = RoutingPlan([SQL])
FILED = {"operation": "solo", "weights": {"sql": 1}, "layers": [1, 2]}


@pytest.mark.parametrize("given", [
    PLAN, SQL, [SQL], (SQL,), iter([SQL]), FILED, [FILED], {"overrides": [FILED]},
    {"version": 1, "overrides": [SQL]},
])  # fmt: skip
def test_one_plan_in_many_shapes(given):
    assert as_plan(given) == PLAN


def test_no_plan_is_none_and_an_empty_one_asks_for_nothing():
    assert as_plan(None) is None
    assert as_plan([]) == as_plan({}) == RoutingPlan()


@pytest.mark.parametrize(("given", "message"), [
    (5, "^The plan is an int; expected a RoutingPlan"),
    (True, "is a bool"),
    ('{"overrides": []}', "is text; .*RoutingPlan.from_json"),
    ([SQL, 5], "override 2: .*instance of Override"),
    ([[SQL]], "override 1: "),
    ({"overides": []}, "'overides', did you mean 'overrides'"),
    ({"operation": "solo"}, "needs at least one expert"),
    (np.ones(2), "override 1: "),
], ids=str)  # fmt: skip
def test_what_is_no_plan_is_named(given, message):
    with pytest.raises(PlanError, match=message):
        as_plan(given)


def test_plans_by_name_and_blends():
    assert named_plans({"one": SQL, "none": None}) == {"one": PLAN, "none": None}
    for wrong in ([SQL], PLAN, None):
        with pytest.raises(PlanError, match="expected them by name"):
            named_plans(wrong)
    with pytest.raises(PlanError, match=r"^Plan 'one' is an int"):
        named_plans({"one": 1})
    assert as_blend(pd.Series({"sql": 0.5})) == as_blend({"sql": 0.5}) == {"sql": 0.5}
    assert as_blend([SQL]) == as_blend(FILED) == PLAN


@pytest.mark.parametrize("places", [
    [1, 2], (1, 2), range(1, 3), {1, 2}, np.arange(1, 3), pd.Series([1, 2]), pd.Index([1, 2]),
    torch.tensor([1, 2]), [np.int64(1), np.uint8(2)], dict.fromkeys([1, 2]).keys(), map(int, "12"),
    np.array([1.0, 2.0]),
])  # fmt: skip
def test_places_from_anywhere(places):
    if isinstance(places, map):
        places = list(places)
    for make in (
        lambda: Override.solo("sql", layers=places).layers,
        lambda: Override.solo("sql", tokens=places).tokens,
        lambda: Steps(places).steps,
    ):
        assert make() == (1, 2)


@pytest.mark.parametrize("one", [3, np.int32(3), torch.tensor(3), np.array(3)], ids=repr)
def test_one_place_from_anywhere(one):
    assert Override.solo("sql", layers=one, tokens=one) == Override.solo(
        "sql", layers=[3], tokens=[3]
    )
    assert Span(one) == Span(start=3)


@pytest.mark.parametrize("wrong", [True, np.True_, [True], np.array([False]), [1.5], float("nan"),
                                   [pd.NA], object(), -1, [np.int64(-1)], [[1]]])  # fmt: skip
def test_what_is_no_place(wrong):
    for where in ("layers", "tokens"):
        with pytest.raises(PlanError, match=rf"^Override \(solo\): {where}"):
            Override.solo("sql", **{where: wrong})


def test_weights_from_anywhere():
    expected = Override.pin({"sql": 0.5, "math": 0.25})
    assert Override.pin(pd.Series({"sql": 0.5, "math": 0.25})) == expected
    assert Override.pin({"sql": np.float32(0.5), "math": torch.tensor(0.25)}) == expected
    assert Override.solo("sql", strength=np.float64(0.5)).strength == 0.5
    assert Override.top_k(np.int64(2)) == Override.top_k(2)


@pytest.mark.parametrize("make", [
    lambda: Span(3, 1), lambda: Span("x"), lambda: Span(True), lambda: Span(1, 2, 3),
    lambda: Span(1, start=1), lambda: Span(begin=1), lambda: TextMatch(""), lambda: TextMatch(5),
    lambda: RegexMatch("("), lambda: RegexMatch(regx="a"), lambda: Steps(True), lambda: Steps("x"),
    lambda: Override(operation="solo"), lambda: Override(), lambda: Override(operation="ba"),
    lambda: Override.pin({"sql": True}), lambda: Override.pin("sql"), lambda: Override.solo(["sql"]),
    lambda: Override.ban(["sql"]), lambda: Override.ban({"sql"}), lambda: Override.solo(5),
    lambda: Override.temperature(True), lambda: Override.solo("sql", strength=True),
    lambda: RoutingPlan(5), lambda: RoutingPlan([5]), lambda: RoutingPlan("solo"),
    lambda: RoutingPlan(version=3),
])  # fmt: skip
def test_every_mistake_in_a_plan_is_a_plan_error(make):
    with pytest.raises(PlanError, match=r"^[A-Z][^\n]+\.$"):
        make()


def test_values_may_come_in_order():
    assert Span(1, 9) == Span(start=1, stop=9)
    assert TextMatch("x") == TextMatch(text="x")
    assert RoutingPlan(SQL) == RoutingPlan([SQL]) == RoutingPlan(overrides=[SQL])


def test_plans_are_copied_pickled_and_written_as_before():
    plan = RoutingPlan([Override.solo("sql", tokens=Span(1, 3)), Override.bypass(layers=[1])])
    assert pickle.loads(pickle.dumps(plan)) == copy.deepcopy(plan) == plan
    assert RoutingPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(("layers", "missing"), [
    (range(1, 99), 3), (Span(1, 99), 3), (Span(0, 4), 3), (Span(5), 5), (Span(7, 9), 7), ([2, 8], 8),
    (Span(1, 3), None), (Span(1), None), (range(3), None),
], ids=repr)  # fmt: skip
def test_a_span_of_layers_fits_where_its_range_does(layers, missing):
    plan = RoutingPlan([Override.solo("sql", layers=layers)])
    if missing is None:
        check_plan(plan, experts=("sql",), num_layers=3)
        return
    with pytest.raises(PlanError, match=f"names layer {missing}; this model has layers 0 to 2"):
        check_plan(plan, experts=("sql",), num_layers=3)
