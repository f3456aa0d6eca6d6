"""The oracle: never worse than any single expert, and what regret means."""

import numpy as np
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from lmoe_studio.causal.oracle import oracle

LOSSES = st.tuples(st.integers(1, 5), st.integers(1, 7)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(0, 20))
)


@given(LOSSES)
def test_it_is_never_above_a_single_expert_and_the_text_lies_between(single):
    found = oracle(single)
    assert (found.per_token <= single).all()
    assert (found.per_token == single[found.expert, np.arange(single.shape[1])]).all()
    assert found.per_token.sum() <= found.per_text.sum() + 1e-9
    assert np.isclose(found.per_text.sum(), single.sum(axis=1).min())
    assert (found.regret(single[0]) >= 0).all()


def test_by_hand():
    found = oracle(np.array([[1.0, 5.0, 1.0], [3.0, 2.0, 4.0]]))
    assert found.expert.tolist() == [0, 1, 0]
    assert found.per_token.tolist() == [1, 2, 1]
    assert found.per_text.tolist() == [1, 5, 1]
    assert found.regret(np.array([0.5, 2.0, 3.0])).tolist() == [-0.5, 0, 2]
