"""Many streams at once: each as if alone, each in its turn."""

import threading
import time

import numpy as np
import pytest
from patience import PATIENCE
from tiny_models import make_tiny_studio

from lmoe_studio.generation.turns import Turns
from lmoe_studio.routing.plan import Override, RoutingPlan, Span

PLANS = [
    None,
    RoutingPlan([Override.solo("sql")]),
    RoutingPlan([Override.solo("math", layers=Span(start=1))]),
    RoutingPlan([Override.ban("prose", tokens="generated")]),
    RoutingPlan([Override.bias({"sql": 3}), Override.top_k(1)]),
    RoutingPlan([Override.pin({"sql": 0.5, "math": 0.5}, strength=0.5)]),
    RoutingPlan([Override.bypass()]),
    RoutingPlan([Override.uniform(tokens={"regex": "[a-m]"})]),
]


@pytest.fixture(scope="module")
def studio():
    return make_tiny_studio()


@pytest.mark.parametrize("count", [16, pytest.param(64, marks=pytest.mark.release)])
def test_concurrent_streams_with_8_plans_equal_their_solo_runs(studio, count):
    options = {"max_new_tokens": 6, "temperature": 1.0}
    solo = [studio.generate("SELECT a", plan=PLANS[n % 8], seed=n, **options) for n in range(count)]
    found, start = {}, threading.Barrier(count)

    def run(number):
        start.wait()
        pieces = list(studio.stream("SELECT a", plan=PLANS[number % 8], seed=number, **options))
        found[number] = pieces[-1].generation

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, alone in enumerate(solo):
        assert found[number].token_ids == alone.token_ids
        assert found[number].text == alone.text
        np.testing.assert_array_equal(  # bit for bit
            found[number].trace.routing_weights, alone.trace.routing_weights
        )
        np.testing.assert_array_equal(found[number].trace.logprobs, alone.trace.logprobs)


def test_one_thread_can_advance_streams_in_any_order(studio):
    options = {"max_new_tokens": 8, "seed": 1}
    streams = [studio.stream("hello", plan=plan, **options) for plan in PLANS]
    last = [None] * len(streams)
    for _ in range(8):
        for number, stream in enumerate(streams):
            last[number] = next(stream, last[number])
        studio.trace("something else", plan=PLANS[1])
    for plan, piece in zip(PLANS, last, strict=True):
        alone = studio.generate("hello", plan=plan, **options)
        assert piece.generation.token_ids == alone.token_ids


def test_streams_take_turns_step_by_step(studio):
    """A short stream does not wait for a long one that began before it."""
    order, begun, answered = [], threading.Event(), threading.Event()

    def run_long():
        for _ in studio.stream("hello", max_new_tokens=100, trace=False):
            order.append("long")
            begun.set()
            assert answered.wait(PATIENCE), "the short stream waited for the long one"

    long = threading.Thread(target=run_long)
    long.start()
    assert begun.wait(PATIENCE)
    for _ in studio.stream("hello", max_new_tokens=5, trace=False):
        order.append("short")
        answered.set()
    long.join()
    assert order[:2] == ["long", "short"]
    assert sorted(order) == ["long"] * 100 + ["short"] * 5


def test_stopping_all_streams_takes_one_token_each(studio):
    stop, counts, late = threading.Event(), [0] * 8, [0] * 8

    def run(number):
        for piece in studio.stream("hello", max_new_tokens=100, should_stop=stop, trace=False):
            counts[number] += piece.token_id >= 0
            late[number] += stop.is_set() and piece.token_id >= 0

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while min(counts) < 3:
        time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    assert max(late) <= 1


def test_turns_go_to_whoever_asked_first():
    turns, order, waiting = Turns(), [], []

    def take(number):
        with turns:
            order.append(number)

    with turns:
        for number in range(20):
            thread = threading.Thread(target=take, args=(number,))
            thread.start()
            waiting.append(thread)
            while len(turns._queue) < number + 2:
                time.sleep(0.0005)
    for thread in waiting:
        thread.join()
    assert order == list(range(20))


def test_a_turn_is_given_back_when_something_goes_wrong():
    turns = Turns()
    with pytest.raises(ValueError, match="inside"), turns:
        raise ValueError("inside")
    with turns:
        pass
