"""Frames and usage against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from hand_made_trace import make_trace
from pandas.testing import assert_frame_equal

from analysis import expert_usage, routing_frame, specialisation, token_frame
from analysis.frames import weight_entropy
from analysis.spreadsheet import spreadsheet_safe, write_csv


def test_routing_frame_has_one_tidy_row_a_cell():
    frame = routing_frame(make_trace())
    expected = pd.DataFrame(
        {
            "run": pd.array(["r"] * 8, dtype="str"),
            "sequence": [0] * 8,
            "position": np.array([0] * 4 + [1] * 4, np.int32),
            "phase": pd.Categorical(["prompt"] * 4 + ["generated"] * 4, ["prompt", "generated"]),
            "token_id": np.array([5] * 4 + [7] * 4, np.int32),
            "token": pd.array(["a"] * 4 + ["b"] * 4, dtype="str"),
            "special": [True] * 4 + [False] * 4,
            "layer": np.array([0, 0, 1, 1] * 2, np.int16),
            "expert": pd.Categorical(["sql", "math"] * 4, ["sql", "math"]),
            "logit": np.array([2, 0, 1, 1, 0.4, 1.6, 0.6, 1.4], np.float32),
            "prob": np.array([1, 0, 0.5, 0.5, 0.2, 0.8, 0.3, 0.7], np.float32),
            "router_weight": np.array([2, 1, 1.5, 1.5, 1.2, 1.8, 1.3, 1.7], np.float32),
            "weight": np.array([1, 0, 0.5, 0.5, 0.2, 0.8, 0.3, 0.7], np.float32),
            "overridden": [True] + [False] * 7,
        }
    )
    assert_frame_equal(frame, expected)


def test_special_tokens_can_be_left_out():
    assert set(routing_frame(make_trace(), special_tokens=False)["position"]) == {1}
    assert token_frame(make_trace(), special_tokens=False)["token"].tolist() == ["b"]


def test_module_and_contribution_columns_come_only_where_recorded():
    trace = make_trace(
        site_layers=(0, 0), site_modules=("q_proj", "v_proj"),
        contributions=np.ones((2, 2, 2), np.float32),
    )  # fmt: skip
    frame = routing_frame(trace)
    assert frame["module"].tolist() == ["q_proj", "q_proj", "v_proj", "v_proj"] * 2
    assert set(frame["layer"]) == {0}
    assert (frame["contribution"] == 1).all()


def test_several_traces_are_told_apart():
    frame = routing_frame([make_trace(run="one"), make_trace(run="two")])
    assert frame.groupby("sequence")["run"].unique().str[0].tolist() == ["one", "two"]
    assert isinstance(frame["expert"].dtype, pd.CategoricalDtype)
    with pytest.raises(ValueError, match="no trace"):
        routing_frame([])


def test_token_frame_by_hand():
    frame = token_frame(make_trace())
    assert frame["top_expert"].tolist() == ["sql", "math"]
    np.testing.assert_allclose(frame["top_weight"], [0.75, 0.75])
    np.testing.assert_allclose(frame["margin"], [0.5, 0.5])
    even = np.log(2)
    uneven = [-(p * np.log(p) + (1 - p) * np.log(1 - p)) for p in (0.2, 0.3)]
    np.testing.assert_allclose(frame["routing_entropy"], [even / 2, sum(uneven) / 2], rtol=1e-6)
    assert frame["rank"].tolist() == [0, 3]


def test_entropy_of_no_weight_is_zero_and_negative_weights_count_as_none():
    weights = np.array([[0, 0], [1, -1], [3, 3]], np.float32)
    np.testing.assert_allclose(weight_entropy(weights), [0, 0, np.log(2)], rtol=1e-6)


def test_usage_by_hand():
    usage = expert_usage(routing_frame(make_trace()), by=("layer",))
    expected = pd.DataFrame(
        {"layer": [0, 0, 1, 1], "expert": ["sql", "math"] * 2, "share": [0.6, 0.4, 0.4, 0.6],
         "load": [0.5, 0.5, 0.5, 0.5], "tokens": [2, 2, 2, 2]}
    )  # fmt: skip
    usage["expert"] = usage["expert"].astype(str)
    assert_frame_equal(usage, expected, check_dtype=False)


def test_usage_never_mixes_prompt_and_generated_silently():
    usage = expert_usage(routing_frame(make_trace()))
    assert len(usage) == 2 * 2 * 2
    shares = usage.groupby(["phase", "layer"], observed=True)["share"].sum()
    np.testing.assert_allclose(shares, 1, rtol=1e-6)


def labelled(weights, labels):
    rows = [
        {"sequence": s, "label": label, "layer": 0, "expert": e, "weight": w}
        for s, (row, label) in enumerate(zip(weights, labels, strict=True))
        for e, w in enumerate(row)
    ]
    return pd.DataFrame(rows)


def test_specialisation_is_the_labels_entropy_when_each_owns_an_expert():
    one_hot = np.eye(2)[[0, 1] * 20]
    result = specialisation(labelled(one_hot, [0, 1] * 20)).iloc[0]
    assert result["information"] == pytest.approx(1)
    assert result["maximum"] == pytest.approx(1)
    assert result["baseline"] < 0.1
    assert result["p_value"] < 0.01


def test_specialisation_is_zero_when_weights_ignore_the_label():
    result = specialisation(labelled(np.full((40, 2), 0.5), [0, 1] * 20)).iloc[0]
    assert result["information"] == pytest.approx(0, abs=1e-9)


def test_specialisation_of_a_known_joint_distribution():
    weights = [[0.8, 0.2]] * 10 + [[0.4, 0.6]] * 10
    joint = np.array([[0.4, 0.1], [0.2, 0.3]])
    outer = joint.sum(1, keepdims=True) * joint.sum(0)
    expected = (joint * np.log2(joint / outer)).sum()
    result = specialisation(labelled(weights, ["a"] * 10 + ["b"] * 10)).iloc[0]
    assert result["information"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-cmd", "@x", "\t=1", "\r=1", "\n", " =1", "＝1", "'a"]
)
def test_formula_cells_are_neutralised_and_recoverable(tmp_path, cell):
    frame = pd.DataFrame({"token": [cell, "plain"], "weight": [-1.5, 2.0]})
    safe = spreadsheet_safe(frame)
    assert safe["token"].tolist() == ["'" + cell, "plain"]
    assert safe["weight"].tolist() == [-1.5, 2.0]
    write_csv(frame, tmp_path / "frame.csv")
    again = pd.read_csv(tmp_path / "frame.csv")
    assert again["token"][1] == "plain"
