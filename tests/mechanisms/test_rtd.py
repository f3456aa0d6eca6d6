"""Routing and decoding by the nearest examples, against the published vote (arXiv 2409.20181)."""

import pytest
import torch
from mechanisms.vectors import cases, same

from lmoe_studio.routing.neighbours import (
    mixed,
    nearest,
    squared_distances,
    usual_temperature,
    vote_logits,
    votes,
)

INPUTS, EXPECTED = cases("rtd")["inputs"], cases("rtd")["outputs"]


def voted(heads):
    near = nearest(squared_distances(INPUTS["query"], INPUTS["keys"], heads), INPUTS["k"])
    return near, votes(near, INPUTS["values"], INPUTS["labels"], INPUTS["temperature"])


def test_one_vote():
    near, shares = voted(1)
    same(near.distance[:, 0], EXPECTED["squared_distance"])
    assert torch.equal(near.key[:, 0], EXPECTED["index"])
    same(shares[:, 0], EXPECTED["probs"])
    same(vote_logits(shares[:, 0]), EXPECTED["logits"])
    same(vote_logits(shares[:, 0]).softmax(-1).sum(-1), torch.ones(3).double())


def test_a_vote_a_head():
    near, shares = voted(INPUTS["heads"])
    assert torch.equal(near.key, EXPECTED["multi_head_index"])
    same(shares, EXPECTED["multi_head"])
    same(shares.mean(-2), EXPECTED["multi_head_mean"])


def test_the_mixture_with_a_language_model():
    found = mixed(INPUTS["model_probs"], EXPECTED["probs"], INPUTS["mix"])
    same(found, EXPECTED["mixed_with_model"])


def test_a_far_query_still_votes():
    near = nearest(squared_distances(INPUTS["query"] + 1e4, INPUTS["keys"]), 5)
    shares = votes(near, INPUTS["values"], INPUTS["labels"], 2.0)
    torch.testing.assert_close(shares.sum(-1), torch.ones(3, 1).double())


def test_a_memory_may_be_smaller_than_k():
    near = nearest(squared_distances(INPUTS["query"], INPUTS["keys"][:2]), 5)
    assert near.key.shape == (3, 1, 2)
    assert usual_temperature(INPUTS["keys"][:1], 5) == 1
    assert usual_temperature(INPUTS["keys"][:1].repeat(4, 1), 2) == 1  # all alike


@pytest.mark.parametrize("heads", [1, 2])
def test_the_usual_temperature_is_the_median_distance_to_the_kth_other(heads):
    keys = INPUTS["keys"]
    found = []
    for number, key in enumerate(keys):
        others = torch.cat([keys[:number], keys[number + 1 :]])
        for part, rest in zip(key.chunk(heads), others.chunk(heads, dim=-1), strict=True):
            found.append(heads * (rest - part).square().sum(-1).sort().values[3 - 1])
    expected = float(torch.stack(found).median())
    assert usual_temperature(keys, 3, heads) == pytest.approx(expected)
