"""What routers note, and how many experts act, against values worked out by hand."""

import json

import numpy as np
import pytest
from hand_made_trace import make_trace
from pandas.testing import assert_frame_equal

from analysis import active_experts, count_experts, routing_frame, site_frame
from analysis.sites import says_something

WEIGHTS = np.array([[[0.5, 0], [0, 0]], [[0.2, 0.8], [-0.3, 0.7]]], np.float32)


def noted(**changes):
    types = [{"name": "code", "tokens": "all", "experts": []}]
    values = {
        "routing_weights": WEIGHTS,
        "router": json.dumps({"kind": "typed", "options": {"types": types}}),
        "notes": {
            "threshold": np.array([[[0.1], [0.2]], [[0.3], [0.4]]], np.float32),
            "type": np.array([[0, 0], [1, 1]]),
            "neighbour": np.arange(12, dtype=np.int32).reshape(2, 2, 3),
            "path": np.array([[[0, 1], [1, 0]], [[0, 1], [0, 1]]]),
        },
    }
    return make_trace(**(values | changes))


def test_a_row_a_token_and_router_with_what_it_noted():
    frame = site_frame(noted())
    assert frame["layer"].tolist() == [0, 1, 0, 1]
    assert frame["active"].tolist() == [1, 0, 2, 2]
    assert frame["mass"].tolist() == pytest.approx([0.5, 0, 1, 0.4])
    assert frame["threshold"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert frame["type"].tolist() == ["other", "other", "code", "code"]
    assert frame["neighbour"].tolist() == [0, 3, 6, 9]
    first, second = noted().experts
    paths = [f"{first}/{second}", f"{second}/{first}"]
    assert frame["path"].tolist() == [paths[number] for number in (0, 1, 0, 0)]
    assert site_frame(noted(), special_tokens=False)["token"].tolist() == ["b", "b"]


def test_several_traces_and_modules():
    one = noted(site_layers=(0, 0), site_modules=("q_proj", "v_proj"), notes={})
    frame = site_frame([one, one])
    assert frame["sequence"].tolist() == [0] * 4 + [1] * 4
    assert frame["module"].tolist() == ["q_proj", "v_proj"] * 4
    assert "threshold" not in frame


def test_how_many_experts_act_and_how_much():
    table = active_experts(site_frame(noted()), by=["layer"]).set_index("layer")
    assert table["active"].to_dict() == {0: 1.5, 1: 1.0}
    assert table["silent"].to_dict() == {0: 0.0, 1: 0.5}
    assert table.loc[1, ["p10", "p90"]].tolist() == pytest.approx([0.2, 1.8])
    assert table["mass"].to_dict() == pytest.approx({0: 0.75, 1: 0.2})
    assert table["mass_spread"].to_dict() == pytest.approx({0: 0.25, 1: 0.2})
    assert table["tokens"].to_dict() == {0: 2, 1: 2}


def test_of_a_routing_frame_the_numbers_are_those_of_the_site_frame():
    for trace in (noted(), noted(site_layers=(0, 0), site_modules=("q_proj", "v_proj"), notes={})):
        counted, frame = count_experts(routing_frame(trace)), site_frame(trace)
        place = [name for name in ("position", "layer", "module") if name in frame]
        assert_frame_equal(
            counted[[*place, "token", "phase", "active", "mass"]],
            frame[[*place, "token", "phase", "active", "mass"]],
        )


@pytest.mark.parametrize(
    ("active", "mass", "worth_a_look"),
    [
        ([2, 2], [1, 1.0000001], False),
        ([2, 3], [1, 1], True),
        ([2, 2], [0.9, 1], True),
        ([2, 2], [1, 1.2], True),
        ([], [], False),
    ],
)
def test_only_what_differs_from_a_softmax_is_worth_a_look(active, mass, worth_a_look):
    assert says_something(np.array(active), np.array(mass)) == worth_a_look
