"""A text read in pieces has the trace that one pass over it has."""

from dataclasses import fields

import numpy as np
import pytest
from tiny_models import ROUTERS, make_tiny_studio
from tolerances import ONE_PASS

from lmoe_studio.routing.plan import Override, RoutingPlan, Span
from lmoe_studio.tracing.prompt import record_prompt

TEXT = "SELECT naïve\n   FROM 日本 🎉; -- {{x}} and so on until the end"
PLANS = [
    None,
    RoutingPlan([Override.solo("sql", tokens={"text": "FROM"})]),
    RoutingPlan([Override.boost({"sql": 3}, tokens=Span(start=11, stop=23), layers=[1])]),
    RoutingPlan([Override.bypass(tokens=(0, 13, 14)), Override.top_k(1)]),
]


def recorded(studio, **options):
    ids = studio.tokenizer(TEXT)["input_ids"]
    return record_prompt(studio.model, studio._texts, ids, contributions=True, **options)


def assert_alike(one, other, count):
    """The same in the first `count` tokens, but for the last digits and the name."""
    assert one.notes.keys() == other.notes.keys()
    pairs = {name: (one.notes[name], other.notes[name]) for name in one.notes}
    pairs |= {
        field.name: (getattr(one, field.name), getattr(other, field.name)) for field in fields(one)
    }
    del pairs["notes"]
    for name, (a, b) in pairs.items():
        if isinstance(a, np.ndarray) and a.dtype.kind == "f":
            np.testing.assert_allclose(a[:count], b[:count], err_msg=name, **ONE_PASS)
        elif isinstance(a, np.ndarray) or name in ("tokens", "alternative_tokens"):
            np.testing.assert_array_equal(a[:count], b[:count], err_msg=name)
        elif name != "run":
            assert a == b, name


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_pieces_make_the_trace_of_one_pass(router):
    studio = make_tiny_studio(router=router)
    whole = recorded(studio, piece=1000)
    for piece in (1, 7, 64):
        assert_alike(recorded(studio, piece=piece), whole, len(whole))


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_holds_across_pieces(plan):
    studio = make_tiny_studio()
    whole = recorded(studio, plan=plan, piece=1000)
    assert_alike(recorded(studio, plan=plan, piece=5), whole, len(whole))


def test_a_text_tells_how_far_it_is_and_can_be_stopped_after_any_piece():
    studio = make_tiny_studio()
    heard = []
    whole = recorded(studio, piece=10, on_progress=lambda *far: heard.append(far))
    total = len(whole)
    assert heard == [(min(at, total), total) for at in range(10, total + 10, 10)]
    for pieces in (1, 3):
        asked = iter([False] * (pieces - 1) + [True])
        stopped = recorded(studio, piece=10, should_stop=lambda asked=asked: next(asked))
        assert len(stopped) == 10 * pieces
        assert_alike(stopped, whole, len(stopped))


def test_others_have_their_turn_between_the_pieces_of_a_long_text():
    studio = make_tiny_studio()
    turns = []

    class Turn:
        def __enter__(self):
            turns.append("in")

        def __exit__(self, *_):
            turns.append("out")

    recorded(studio, piece=32, turn=Turn())
    assert turns == ["in", "out"] * (len(turns) // 2)
    assert len(turns) > 2
