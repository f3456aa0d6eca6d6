"""A replayed step is the same step: tested on the CPU with a tape, on a GPU with a CUDA graph."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from tapes import NotCapturable, Tape
from tiny_models import ROUTERS, make_tiny_studio
from tolerances import ONE_PASS

from lmoe_studio.generation import replay
from lmoe_studio.generation.decode import Row, decode_steps
from lmoe_studio.generation.sampling import Sampler, SamplingOptions
from lmoe_studio.routing.plan import Override, RegexMatch, RoutingPlan, Span, Steps, TextMatch
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.routing.settle import PlanRow
from lmoe_studio.tracing.recording import Recording

PROMPTS = [[5, 6, 7, 8, 9, 10], [20, 21], [30, 31, 32]]
STEPS = 12
PLANS = {
    "router": None,
    "all": RoutingPlan([Override.solo("sql"), Override.ban("math", layers=[1])]),
    "generated": RoutingPlan(
        [Override.pin({"sql": 2, "math": -1}, tokens="generated", renormalise=False)]
    ),
    "half": RoutingPlan([Override.boost({"prose": 3}, strength=0.5), Override.top_k(2)]),
    "logits": RoutingPlan([Override.bias({"sql": 4}), Override.temperature(0.5, layers=[0])]),
    "steps": RoutingPlan([Override.bypass(tokens=Steps(steps=Span(start=2, stop=5)))]),
    "places": RoutingPlan(
        [Override.uniform(tokens=Span(start=7)), Override.ban("sql", tokens=[9])]
    ),
}


@pytest.fixture
def tapes():
    """Counts the captures and the replays of a test."""
    Tape.captures = Tape.replays = 0
    return Tape


def write(
    studio, plan_of, replayable=None, *, prompts=PROMPTS, recording=None, steps=STEPS, end_ids=()
):
    rows = [Row(list(ids), Sampler(SamplingOptions(), seed)) for seed, ids in enumerate(prompts)]
    for _ in decode_steps(
        studio.model,
        rows,
        max_new_tokens=steps,
        end_ids=frozenset(end_ids),
        plan_of=plan_of,
        should_stop=lambda: False,
        turn=nullcontext(),
        recording=recording,
        replayable=replayable,
    ):
        pass
    return [row.written for row in rows]


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_replayed_steps_write_and_record_what_plain_steps_do(router, name, tapes):
    studio = make_tiny_studio(router=router)
    plans = [PLANS[name], None, PLANS["all"]]
    plain, replayed = Recording(3, contributions=True), Recording(3, contributions=True)
    expected = write(studio, lambda row, _: plans[row], recording=plain)
    found = write(studio, lambda row, _: plans[row], tapes, recording=replayed)
    assert found == expected
    is_remembered = router.pool != "token" or router.kind == "pre"  # between passes
    assert tapes.replays == (0 if is_remembered else STEPS - 1)
    for part in ("logits", "probs", "router_weights", "weights", "contributions"):
        for one, other in zip(plain._routing, replayed._routing, strict=True):
            mine, theirs = getattr(one, part), getattr(other, part)
            torch.testing.assert_close(theirs, mine, **ONE_PASS)
    for one, other in zip(plain._scores, replayed._scores, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_allclose(theirs.logprobs, mine.logprobs, **ONE_PASS)


@pytest.mark.parametrize("composition", ["output", "factor"])
def test_every_plan_in_one_batch(composition, tapes):
    studio = make_tiny_studio(composition=composition)
    plans = list(PLANS.values())
    prompts = [[40 + row] * (row + 1) for row in range(len(plans))]
    expected = write(studio, lambda row, _: plans[row], prompts=prompts)
    assert write(studio, lambda row, _: plans[row], tapes, prompts=prompts) == expected
    assert tapes.replays == STEPS - 2


def test_plans_that_change_on_the_way(tapes):
    """Numbers are taken over by the captured step; a plan of another kind starts anew.

    The kinds follow each other after 3, 5 and 3 of the 11 steps, of which the first runs as it is.
    """
    studio = make_tiny_studio()
    order = ["all"] * 4 + ["router"] * 3 + ["steps"] * 2 + ["half"] * 6

    def changing(row, ids):
        weight = RoutingPlan([Override.pin({"sql": len(ids) / 10, "math": 0.1})])
        return weight if row == 0 else PLANS[order[len(ids) - len(PROMPTS[row])]]

    expected = write(studio, changing)
    assert write(studio, changing, tapes) == expected
    assert tapes.replays == 2 + 4 + 2


MATCHES = {
    "letters": [Override.solo("sql", tokens=RegexMatch(regex="[a-m]"))],
    "never": [Override.bypass(tokens=TextMatch(text="nowhere"))],
    "three": [
        Override.bias({"math": 3}, tokens=RegexMatch(regex="[aeiou]")),
        Override.boost({"prose": 2}, tokens=TextMatch(text="c"), strength=0.5),
        Override.top_k(1, tokens=RegexMatch(regex="[x-z]")),
    ],
}


@pytest.mark.parametrize("name", MATCHES)
def test_texts_that_match_now_and_then_are_one_kind_of_step(name, tapes):
    studio, plan, letters = make_tiny_studio(), RoutingPlan(MATCHES[name]), "abcxyzeno"

    def plan_of():
        rows = [PlanRow(["q"] * len(prompt)) for prompt in PROMPTS]

        def settle(row, ids):
            new = len(ids) - len(PROMPTS[row])
            if not new:
                return rows[row].for_prompt(plan)
            return rows[row].for_step(plan, len(ids) - 1, letters[new * (row + 1) % 9])

        return settle

    expected = write(studio, plan_of(), steps=60)
    assert write(studio, plan_of(), tapes, steps=60) == expected
    assert (tapes.captures, tapes.replays) == (1, 58)
    if name == "never":
        assert write(studio, lambda *_: None, steps=60) == expected


@pytest.mark.parametrize("strengths", [(0.5, 1.0), (0.0, 1.0), (0.0, 0.3, 1.0, 0.7)])
def test_a_strength_that_moves_captures_once_more_at_most(strengths, tapes):
    studio = make_tiny_studio()

    def moving(row, ids):
        strength = strengths[len(ids) // 3 % len(strengths)]
        return RoutingPlan([Override.solo("sql", strength=strength), Override.ban("math")])

    expected = write(studio, moving, steps=40)
    assert write(studio, moving, tapes, steps=40) == expected
    assert tapes.captures <= 2


def test_rows_that_end_leave_the_step_as_it_is(tapes):
    studio = make_tiny_studio()
    plans = [PLANS["half"], PLANS["logits"], PLANS["all"]]
    everything = write(studio, lambda row, _: plans[row], steps=20)
    ends = frozenset({everything[0][4], everything[1][7]})
    expected = write(studio, lambda row, _: plans[row], steps=20, end_ids=ends)
    assert write(studio, lambda row, _: plans[row], tapes, steps=20, end_ids=ends) == expected
    assert len({len(row) for row in expected}) > 1
    assert tapes.captures == 1


def test_memory_grows_as_needed(tapes, monkeypatch):
    studio = make_tiny_studio()
    expected = write(studio, lambda *_: PLANS["generated"], steps=40)
    monkeypatch.setattr(replay, "_ROOM", 3)
    assert write(studio, lambda *_: PLANS["generated"], tapes, steps=40) == expected


def test_folded_blends_are_replayed_too(tapes):
    studio = make_tiny_studio()
    with studio.fold(RoutingPlan([Override.solo("sql")])):
        expected = write(studio, lambda *_: None)
        assert write(studio, lambda *_: None, tapes) == expected
    assert tapes.replays == STEPS - 2


def test_what_cannot_be_captured_goes_on_step_by_step(caplog):
    class Refusing(Tape):
        def capture(self, run):
            raise NotCapturable("something needs the host")

    studio = make_tiny_studio()
    expected = write(studio, lambda *_: PLANS["all"])
    assert write(studio, lambda *_: PLANS["all"], Refusing) == expected
    assert caplog.text.count("something needs the host") == 1


def test_sliding_windows_and_foreign_attention_are_not_replayed(tapes):
    studio = make_tiny_studio()
    studio.model.base.config._attn_implementation = "flex_attention"
    try:
        cache = studio.model(torch.tensor([[5, 6]]), use_cache=True).past_key_values
    except Exception:  # attention that this machine lacks
        cache = make_tiny_studio().model(torch.tensor([[5, 6]]), use_cache=True).past_key_values
    padding = torch.zeros(1, 2, dtype=torch.bool)
    options = {"record": False, "contributions": False, "replayable": tapes}
    assert replay.ReplayedSteps.over(studio.model, cache, padding, **options) is None
    studio.model.base.config._attn_implementation = "sdpa"
    studio.model.base.config.layer_types = ["sliding_attention"] * 2
    studio.model.base.config.sliding_window = 4
    assert replay.ReplayedSteps.over(studio.model, cache, padding, **options) is None


def test_the_tape_refuses_what_a_graph_would():
    values = torch.arange(4)
    for run in (lambda: values.sum().item(), lambda: values[values > 1], lambda: torch.tensor([1])):
        with pytest.raises(NotCapturable):
            Tape().capture(run)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("scope", ["layer", "shared", "module"])
def test_cuda_graphs_write_what_plain_steps_do(scope):
    studio = make_tiny_studio(router=RouterSettings(scope=scope))
    plans = list(PLANS.values())
    prompts = [[40 + row] * (row + 1) for row in range(len(plans))]
    expected = write(studio, lambda row, _: plans[row], prompts=prompts)
    studio.model.to("cuda")
    assert write(studio, lambda row, _: plans[row], replay.CudaGraph, prompts=prompts) == expected
