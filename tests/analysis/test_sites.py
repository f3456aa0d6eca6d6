"""What routers note, and how many experts act, against values worked out by hand."""

import json

import numpy as np
import pytest
from hand_made_trace import make_trace

from analysis import active_experts, site_frame

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
