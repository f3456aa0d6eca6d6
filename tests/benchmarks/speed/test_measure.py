"""Rounds, ratios and spreads."""

from collections import Counter
from types import SimpleNamespace

import pytest

from benchmarks.speed import measure
from benchmarks.speed.measure import Case, Effort, Spread, interleave, ratios


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch):
    """Work takes as long as it says, by a clock that nothing else moves."""
    now = 0.0

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    clock = SimpleNamespace(perf_counter=lambda: now, process_time=lambda: now)
    monkeypatch.setattr(measure, "time", clock)
    return work


def test_each_round_times_every_case_once_after_two_rounds_of_warm_up():
    ran = []
    cases = {name: Case(lambda _, name=name: ran.append(name)) for name in "abc"}
    times = interleave(cases, Effort(rounds=4, seconds=60))
    rounds = [ran[start : start + 3] for start in range(0, len(ran), 3)]
    assert len(rounds) == 2 + 4
    assert all(Counter(one) == Counter("abc") for one in rounds)
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4, "c": 4}


def test_the_order_is_drawn_anew_each_round():
    ran = []
    cases = {name: Case(lambda _, name=name: ran.append(name)) for name in "abcdefgh"}
    interleave(cases, Effort(rounds=6, seconds=60))
    rounds = {tuple(ran[start : start + 8]) for start in range(0, len(ran), 8)}
    assert len(rounds) == 8


def test_preparing_is_not_timed_and_its_result_is_handed_over(work):
    def prepare():
        work(0.05)
        return "ready"

    seen = []
    times = interleave({"a": Case(seen.append, prepare)}, Effort(rounds=3, seconds=60))
    assert set(seen) == {"ready"}
    assert times["a"] == [0, 0, 0]


def test_slow_rounds_are_fewer_but_at_least_three(work):
    case = Case(lambda _: work(0.02))
    assert len(interleave({"a": case}, Effort(rounds=50, seconds=0.001))["a"]) == 3
    assert 3 <= len(interleave({"a": case}, Effort(rounds=50, seconds=0.2))["a"]) <= 10


def test_times_are_for_one_unit(work):
    slow = Case(lambda _: work(0.1), units=10)
    times = interleave({"a": slow}, Effort(rounds=3, seconds=1))["a"]
    assert times == pytest.approx([0.01] * 3)


def test_a_ratio_is_taken_within_a_round_so_that_a_slow_one_cancels():
    assert ratios([1.0, 10.0, 2.0], [2.0, 20.0, 4.0]) == Spread(low=0.5, median=0.5, high=0.5)


@pytest.mark.parametrize(
    ("values", "expected"), [([3.0], (3, 3, 3)), ([5.0, 1.0, 3.0, 2.0, 4.0], (2, 3, 4))]
)
def test_a_spread_is_the_median_and_the_quartiles(values, expected):
    spread = Spread.of(values)
    assert (spread.low, spread.median, spread.high) == expected
