"""When a ratio counts as worse, on made-up figures."""

import pytest
from hypothesis import given, strategies as st

from benchmarks.speed.measure import Spread
from benchmarks.speed.regressions import regressions
from benchmarks.speed.report import Figures, RowReport

LORA = "PEFT LoRA, rank 64"


def row(around: float = 0.02, **ratios: float) -> RowReport:
    cases = {
        name: Figures(
            value=Spread.of([1.0]),
            against=LORA,
            ratio=Spread(low=ratio * (1 - around), median=ratio, high=ratio * (1 + around)),
        )
        for name, ratio in ({LORA: 1.0} | ratios).items()
    }
    return RowReport(title="256 tokens", unit="s", rounds=15, cases=cases)


def test_a_tenth_more_is_reported_in_one_sentence_that_has_both_ratios():
    found = regressions(row(ours=1.10), row(ours=1.00))
    assert list(found) == ["ours"]
    assert found["ours"] == (
        "256 tokens: ours took 1.10 (1.08–1.12) times what PEFT LoRA, rank 64 did, where "
        "1.00 (0.98–1.02) was measured before."
    )


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.03, 1.07])
def test_less_than_that_is_not(ratio):
    assert regressions(row(ours=ratio), row(ours=1.0)) == {}


def test_a_growth_that_the_spread_may_explain_is_not():
    assert regressions(row(0.15, ours=1.12), row(0.15, ours=1.0)) == {}
    assert regressions(row(0.15, ours=2.0), row(0.15, ours=1.0)) != {}


def test_cases_that_only_one_side_has_are_left_out():
    assert regressions(row(new=9.0), row(old=1.0)) == {}


@given(st.floats(0.1, 10), st.floats(0, 0.5))
def test_the_same_figures_are_never_worse(ratio, around):
    assert regressions(row(around, ours=ratio), row(around, ours=ratio)) == {}


@given(st.floats(0.1, 10), st.floats(0, 0.04), st.floats(1.1, 5))
def test_any_growth_of_a_tenth_or_more_is_seen_in_a_quiet_run(ratio, around, growth):
    worse = row(around, ours=ratio * growth * 1.001)
    assert list(regressions(worse, row(around, ours=ratio))) == ["ours"]
