"""A prompt that several plans leave alone is read once, and nothing else changes."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tiny_models import ROUTERS, make_tiny_studio
from tolerances import ONE_PASS

from lmoe_studio.generation.shared_prompts import PromptReadings, prompt_part
from lmoe_studio.routing.plan import Override, RoutingPlan, Span, Steps, TextMatch

GENERATED = {
    "router": None,
    "sql": RoutingPlan([Override.solo("sql", tokens="generated")]),
    "from step 2": RoutingPlan([Override.ban("math", tokens=Steps(steps=Span(start=2)))]),
    "later places": RoutingPlan([Override.bypass(tokens=Span(start=6))]),
    "text": RoutingPlan([Override.solo("prose", tokens=TextMatch(text="zzz"))]),
    "nothing": RoutingPlan([Override.solo("math", strength=0)]),
}
PROMPT = {
    "math": RoutingPlan([Override.solo("math"), Override.ban("sql", tokens="generated")]),
    "also math": RoutingPlan([Override.solo("math")]),
    "first place": RoutingPlan([Override.bypass(tokens=[0])]),
    "places on both sides": RoutingPlan([Override.solo("sql", tokens=[3, 4, 5, 7])]),
    "span over both": RoutingPlan([Override.solo("prose", tokens=Span(start=2, stop=9))]),
}


@pytest.fixture
def studio():
    return make_tiny_studio()


def passes_of(studio, monkeypatch):
    """The rows of each forward pass from now on."""
    seen = []
    forward = studio.model.forward

    def watched(ids, *args, **options):
        seen.append(tuple(ids.shape))
        return forward(ids, *args, **options)

    monkeypatch.setattr(studio.model, "forward", watched)
    return seen


def test_plans_about_new_tokens_read_the_prompt_once(studio, monkeypatch):
    seen = passes_of(studio, monkeypatch)
    studio.compare("hello", GENERATED, base=False, max_new_tokens=4)
    assert seen[0] == (1, 5)
    assert set(seen[1:]) == {(6, 1)}


def test_equal_plans_for_the_prompt_share_a_reading(studio, monkeypatch):
    seen = passes_of(studio, monkeypatch)
    studio.compare("hello", GENERATED | PROMPT, max_new_tokens=4)
    # The router's, the base's, math's, the first place's, and those of the last two.
    assert seen[:2] == [(6, 5), (12, 1)]


@pytest.mark.parametrize("trace", [True, False])
@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_each_run_is_what_it_would_be_alone(router, trace):
    studio = make_tiny_studio(router=router)
    options = {"max_new_tokens": 12, "trace": trace, "temperature": 1.0, "seed": 3}
    together = studio.compare("hello", GENERATED | PROMPT, **options)
    for name, plan in (GENERATED | PROMPT).items():
        alone = studio.generate("hello", plan=plan, **options)
        run = together.runs[name]
        assert run.token_ids == alone.token_ids
        if trace:
            for part in ("routing_weights", "router_logits", "logprobs", "entropies"):
                np.testing.assert_allclose(
                    getattr(run.trace, part), getattr(alone.trace, part), **ONE_PASS
                )
            # Where a plan comes back to the router's own weight, the last bit may differ or not.
            own, applied = alone.trace.router_weights, alone.trace.routing_weights
            differs = np.abs(own - applied) > ONE_PASS["atol"]
            np.testing.assert_array_equal(
                run.trace.overridden & differs, alone.trace.overridden & differs
            )
            assert run.trace.plan == alone.trace.plan


def test_long_prompts_are_shared_piece_by_piece(studio, monkeypatch):
    whole = studio.compare("abcd" * 10, GENERATED | PROMPT, max_new_tokens=6)
    monkeypatch.setattr("lmoe_studio.generation.shared_prompts.PASS", 28)
    seen = passes_of(studio, monkeypatch)
    pieces = studio.compare("abcd" * 10, GENERATED | PROMPT, max_new_tokens=6)
    assert seen[0] == (7, 4)
    for name, run in whole.runs.items():
        assert pieces.runs[name].token_ids == run.token_ids
        np.testing.assert_allclose(pieces.runs[name].trace.logprobs, run.trace.logprobs, **ONE_PASS)


scopes = st.one_of(
    st.sampled_from(["all", "prompt", "generated"]),
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
    st.builds(Span, start=st.integers(0, 9)),
    st.builds(lambda start: Steps(steps=Span(start=start)), st.integers(0, 4)),
)
overrides = st.builds(
    lambda name, tokens, strength: Override.solo(name, tokens=tokens, strength=strength),
    st.sampled_from(["sql", "prose", "math"]), scopes, st.sampled_from([0, 0.5, 1]),
)  # fmt: skip
plans = st.none() | st.builds(RoutingPlan, st.lists(overrides, max_size=3))
STUDIO = make_tiny_studio()


@settings(max_examples=40, deadline=None)
@given(st.lists(plans, min_size=2, max_size=5))
def test_whatever_the_plans_a_comparison_equals_its_runs(found):
    named = {str(number): plan for number, plan in enumerate(found)}
    together = STUDIO.compare("hello", named, base=False, max_new_tokens=5, trace=False)
    for name, plan in named.items():
        alone = STUDIO.generate("hello", plan=plan, max_new_tokens=5, trace=False)
        assert together.runs[name].token_ids == alone.token_ids


def test_what_reaches_a_prompt():
    assert prompt_part(None, 5) is None
    assert prompt_part(GENERATED["later places"], 6) is None
    assert prompt_part(GENERATED["later places"], 7) == GENERATED["later places"]
    assert prompt_part(PROMPT["math"], 5) == PROMPT["also math"]
    for name in ("places on both sides", "span over both"):
        assert prompt_part(PROMPT[name], 5) == PROMPT[name]


def test_rows_with_prompts_of_their_own_are_left_as_they_are():
    readings = PromptReadings.of([[1, 2], [3]], [None, PROMPT["math"]])
    assert readings.prompts == [[1, 2], [3]]
    assert readings.of_row is None
    readings = PromptReadings.of([[1, 2], [3], [1, 2]], [None, None, RoutingPlan()])
    assert readings.prompts == [[1, 2], [3]]
    assert readings.of_row == [0, 1, 0]
