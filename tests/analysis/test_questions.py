"""Every question against loops that say what it means, and against what must not matter."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import analysis
from analysis import (
    FrameError,
    active_experts,
    coactivation,
    compare_runs,
    count_experts,
    effective_experts,
    expert_tokens,
    expert_usage,
    gate_health,
    label_owners,
    label_shares,
    layer_transitions,
    routing_entropy,
    select,
    specialisation,
)

EXPERTS = ["sql", "math", "prose"]
LABELS = ["a", "b", "a", "b", "a", None]


def make_frame(weights, *, tokens=None, labels=None, run="r", experts=EXPERTS):
    """A frame of `[sequence, position, layer, expert]` weights."""
    rows = [
        {
            "run": run, "sequence": s, "position": t, "phase": "generated" if t > 2 else "prompt",
            "token": tokens[s][t] if tokens else f"w{t}", "special": t == 0, "layer": layer,
            "expert": experts[e], "weight": weights[s, t, layer, e],
            "contribution": weights[s, t, layer, e] * (e + 1),
            **({"label": labels[s]} if labels else {}),
        }
        for s, t, layer, e in np.ndindex(weights.shape)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.astype({"expert": pd.CategoricalDtype(experts)})


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(0).dirichlet([0.6] * 3, (6, 5, 4))


@pytest.fixture(scope="module")
def frame(weights):
    words = np.random.default_rng(1).choice(["x", "y", "z"], (6, 5)).tolist()
    return make_frame(weights, tokens=words, labels=LABELS)


def entropy(p):
    return -sum(x * np.log(x) for x in p if x > 0)


def jsd(p, q):
    middle = (np.asarray(p) + q) / 2
    return (entropy(middle) - (entropy(p) + entropy(q)) / 2) / np.log(2)


QUESTIONS = {
    "usage": lambda f: expert_usage(f, top_k=2),
    "usage by contribution": lambda f: expert_usage(f, by=("layer",), value="contribution"),
    "entropy": routing_entropy,
    "effective": effective_experts,
    "coactivation": coactivation,
    "tokens": lambda f: expert_tokens(f, minimum=2),
    "transitions": layer_transitions,
    "health": gate_health,
    "active": lambda f: active_experts(count_experts(f), by=("layer",)),
    "specialisation": lambda f: specialisation(f, permutations=5),
    "shares": lambda f: label_shares(f, by=("layer",)),
    "owners": lambda f: label_owners(f, permutations=5),
    "comparison": lambda f: compare_runs(f, f.assign(weight=f["weight"] ** 2)),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_order_of_the_rows_does_not_matter(frame, name):
    shuffled = frame.sample(frac=1, random_state=0)
    assert_frame_equal(QUESTIONS[name](shuffled), QUESTIONS[name](frame))


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_order_of_the_experts_does_not_matter(frame, name):
    other = frame.copy()
    other["expert"] = other["expert"].cat.reorder_categories(EXPERTS[::-1])
    answers = []
    for given in (frame, other):
        answer = QUESTIONS[name](given)
        for column in answer.select_dtypes("category"):
            answer[column] = answer[column].astype(str)
        if "dead_experts" in answer:
            answer["dead_experts"] = answer["dead_experts"].str.split(", ").map(sorted)
        keys = [c for c in answer if answer[c].dtype.kind != "f" and c != "dead_experts"]
        answers.append(answer.sort_values(keys).reset_index(drop=True))
    assert_frame_equal(*answers)


@pytest.mark.parametrize("name", QUESTIONS)
def test_an_empty_frame_is_refused(frame, name):
    with pytest.raises(FrameError, match=r"no rows|No text has a label"):
        QUESTIONS[name](frame.iloc[:0])


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_missing_column_is_named(frame, name):
    with pytest.raises(FrameError, match="no column 'expert'"):
        QUESTIONS[name](frame.drop(columns="expert"))


def test_select_keeps_the_rows_asked_for(frame):
    assert not select(frame, special_tokens=False)["special"].any()
    assert set(select(frame, phase="generated")["position"]) == {3, 4}
    assert set(select(frame, layers=range(1, 3))["layer"]) == {1, 2}
    assert_frame_equal(select(frame), frame)
    with pytest.raises(FrameError, match="no column 'special'"):
        select(frame.drop(columns="special"), special_tokens=False)


def test_a_cell_that_names_an_expert_twice_is_refused(frame):
    with pytest.raises(FrameError, match="twice in one cell"):
        expert_usage(pd.concat([frame, frame.iloc[1:2]]))


def test_cells_that_lack_an_expert_count_it_as_none(weights):
    frame = make_frame(weights)
    frame = frame[~((frame["expert"] == "math") & (frame["position"] == 1))]
    usage = expert_usage(frame, by=("layer",)).set_index(["layer", "expert"])["share"]
    assert usage[0, "math"] == pytest.approx(weights[:, [0, 2, 3, 4], 0, 1].sum() / 30)


def test_usage_against_a_loop(weights, frame):
    usage = expert_usage(frame, by=("layer",), top_k=2).set_index(["layer", "expert"])
    for layer, (e, name) in ((k, pair) for k in range(4) for pair in enumerate(EXPERTS)):
        cells = weights[:, :, layer].reshape(-1, 3)
        assert usage.loc[(layer, name), "share"] == pytest.approx(cells[:, e].mean())
        in_top = [e in sorted(range(3), key=lambda i: -row[i])[:2] for row in cells]
        assert usage.loc[(layer, name), "load"] == pytest.approx(np.mean(in_top))


def test_usage_by_contribution_scales_each_cell(weights, frame):
    scaled = weights * [1, 2, 3]
    scaled /= scaled.sum(-1, keepdims=True)
    usage = expert_usage(frame, by=(), value="contribution")
    np.testing.assert_allclose(usage["share"], scaled.mean((0, 1, 2)))
    with pytest.raises(FrameError, match="trace with contributions"):
        expert_usage(frame.drop(columns="contribution"), value="contribution")


def test_intervals_are_those_of_drawing_whole_sequences_anew(weights, frame):
    usage = expert_usage(frame, by=("layer",), resamples=4000).set_index(["layer", "expert"])
    rng = np.random.default_rng(5)
    means = [weights[rng.integers(0, 6, 6), :, 2, 1].mean() for _ in range(4000)]
    low, high = usage.loc[(2, "math"), ["share_low", "share_high"]]
    np.testing.assert_allclose([low, high], np.quantile(means, [0.025, 0.975]), atol=0.015)
    assert (usage["share_low"] <= usage["share"]).all()
    assert (usage["share"] <= usage["share_high"]).all()
    one = expert_usage(frame[frame["sequence"] == 0], resamples=10)
    assert one[["share_low", "share_high"]].isna().all(axis=None)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(60):
        texts = rng.beta(2, 2, (30, 1, 1, 1))  # the truth is one half
        weights = np.concatenate([texts, 1 - texts], axis=-1)
        usage = expert_usage(make_frame(weights, experts=["x", "y"]), by=(), resamples=300).iloc[0]
        hits += usage["share_low"] <= 0.5 <= usage["share_high"]
    assert hits >= 50


def test_entropy_and_effective_experts_against_a_loop(weights, frame):
    result = routing_entropy(frame, by=("layer",)).set_index("layer")
    effective = effective_experts(frame, by=("layer",)).set_index("layer")
    for layer in range(4):
        cells = weights[:, :, layer].reshape(-1, 3)
        each = [entropy(row) for row in cells]
        assert result.loc[layer, "token"] == pytest.approx(np.mean(each))
        assert result.loc[layer, "overall"] == pytest.approx(entropy(cells.mean(0)))
        assert result.loc[layer, "normalised"] == pytest.approx(np.mean(each) / np.log(3))
        assert effective.loc[layer, "token"] == pytest.approx(np.mean(np.exp(each)))
        assert effective.loc[layer, "overall"] == pytest.approx(np.exp(entropy(cells.mean(0))))
    assert (result["information"] >= 0).all()


def test_effective_experts_of_known_routings():
    even = make_frame(np.full((1, 2, 1, 3), 1 / 3))
    assert effective_experts(even)["token"].tolist() == pytest.approx([3])
    one_hot = make_frame(np.eye(3)[[0, 1, 2]][None, :, None])
    answer = effective_experts(one_hot, by=()).iloc[0]
    assert (answer["token"], answer["overall"]) == (pytest.approx(1), pytest.approx(3))


def test_cells_without_weight_count_in_nothing():
    weights = np.zeros((1, 2, 1, 3))
    weights[0, 1, 0] = [0.5, 0.5, 0]
    answer = routing_entropy(make_frame(weights), by=()).iloc[0]
    assert answer["tokens"] == 1
    assert answer["token"] == answer["overall"] == pytest.approx(np.log(2))


def test_coactivation_against_a_loop(weights, frame):
    table = coactivation(frame, top_k=2).set_index(["layer", "expert", "other"])
    assert len(table) == 4 * 3 * 2, "all pairs, not only neighbours in rank"
    for layer in range(4):
        cells = weights[:, :, layer].reshape(-1, 3)
        active = [set(sorted(range(3), key=lambda i: -row[i])[:2]) for row in cells]
        for i, j in permutations(range(3), 2):
            row = table.loc[(layer, EXPERTS[i], EXPERTS[j])]
            both = sum({i, j} <= chosen for chosen in active)
            own, others = (sum(e in chosen for chosen in active) for e in (i, j))
            assert row["together"] == both
            assert row["share"] == pytest.approx(both / 30)
            assert row["conditional"] == pytest.approx(both / own)
            assert row["lift"] == pytest.approx((both / 30) / (own / 30 * others / 30))
            correlation = np.corrcoef(cells[:, i], cells[:, j])[0, 1]
            assert row["correlation"] == pytest.approx(correlation)


def test_coactivation_of_an_expert_that_never_acts_is_unknown():
    weights = np.zeros((1, 4, 1, 3))
    weights[..., 0] = 1
    row = coactivation(make_frame(weights)).set_index(["expert", "other"]).loc[("math", "prose")]
    assert row["together"] == 0
    assert row[["conditional", "lift", "correlation"]].isna().all()


def test_tokens_against_a_loop(weights, frame):
    table = expert_tokens(frame, minimum=1, most=100).set_index(["expert", "token"])
    words = frame.drop_duplicates(["sequence", "position"]).set_index(["sequence", "position"])
    for (e, name), word in ((pair, w) for pair in enumerate(EXPERTS) for w in ("x", "y", "z")):
        places = [place for place, token in words["token"].items() if token == word]
        share = np.mean([weights[s, t, :, e].mean() for s, t in places])
        row = table.loc[(name, word)]
        assert row["occurrences"] == len(places)
        assert row["share"] == pytest.approx(share)
        assert row["lift"] == pytest.approx(share / weights[..., e].mean())


def test_rare_tokens_are_left_out_and_lift_falls():
    weights = np.full((1, 10, 1, 2), 0.5)
    weights[0, 0, 0] = [1, 0]  # a single occurrence with the highest lift of all
    weights[0, 1:5, 0] = [0.8, 0.2]
    tokens = [["rare"] + ["some"] * 4 + ["rest"] * 5]
    frame = make_frame(weights, tokens=tokens, experts=["p", "q"])
    table = expert_tokens(frame, minimum=2)
    assert table["token"].tolist() == ["some", "rest", "rest", "some"]
    assert expert_tokens(frame, minimum=2, most=1)["token"].tolist() == ["some", "rest"]
    assert expert_tokens(frame, minimum=99).empty
    by_layer = expert_tokens(frame, minimum=2, by=("layer",))
    assert by_layer["layer"].unique().tolist() == [0]


def test_transitions_against_a_loop(weights, frame):
    table = layer_transitions(frame).set_index(["layer", "expert", "to_expert"])
    top = weights.argmax(-1).reshape(30, 4)
    for layer in range(3):
        for i, j in np.ndindex(3, 3):
            tokens = int(((top[:, layer] == i) & (top[:, layer + 1] == j)).sum())
            if not tokens:
                assert (layer, EXPERTS[i], EXPERTS[j]) not in table.index
                continue
            row = table.loc[(layer, EXPERTS[i], EXPERTS[j])]
            leaving, arriving = (top[:, layer] == i).sum(), (top[:, layer + 1] == j).sum()
            assert (row["to_layer"], row["tokens"]) == (layer + 1, tokens)
            assert row["share"] == pytest.approx(tokens / 30)
            assert row["probability"] == pytest.approx(tokens / leaving)
            assert row["lift"] == pytest.approx(tokens / leaving / (arriving / 30))


def test_one_layer_has_no_transitions(weights):
    assert layer_transitions(make_frame(weights[:, :, :1])).empty


@pytest.mark.parametrize(
    ("mean", "health", "dead"),
    [
        ([0.4, 0.3, 0.3], "good", ""),
        ([0.85, 0.1, 0.05], "watch", ""),
        ([0.495, 0.5, 0.005], "watch", "prose"),
        ([0.98, 0.015, 0.005], "collapsed", "prose"),
        ([0, 0, 0], "no weight", "sql, math, prose"),
    ],
)
def test_health_of_known_routings(mean, health, dead):
    row = gate_health(make_frame(np.tile(mean, (2, 3, 1, 1)).astype(float))).iloc[0]
    assert (row["health"], row["dead_experts"]) == (health, dead)
    assert row["max_share"] == pytest.approx(max(mean))
    assert row["silent"] == (max(mean) == 0)


def test_the_share_of_tokens_without_an_expert_is_that_of_each_layer():
    weights = np.full((2, 5, 2, 3), 0.2)
    weights[0, :3, 1] = 0
    weights[1, 0, 1] = (-0.2, 0, 0)  # takes an update away, and so acts
    assert gate_health(make_frame(weights))["silent"].tolist() == [0, 0.3]


def test_sharp_tokens_that_use_every_expert_are_healthy():
    row = gate_health(make_frame(np.eye(3)[np.arange(9) % 3][None, :, None])).iloc[0]
    assert (row["health"], row["live"], row["dead"]) == ("good", 3, 0)
    assert row["entropy"] == pytest.approx(1)


def test_specialisation_leaves_texts_without_a_label_out(frame):
    with_labels = frame[frame["label"].notna()]
    assert_frame_equal(specialisation(frame), specialisation(with_labels))


def test_specialisation_of_one_label_is_none_and_of_no_label_an_error(frame):
    row = specialisation(frame.assign(label="same")).iloc[0]
    assert (row["information"], row["maximum"], row["p_value"]) == (pytest.approx(0), 0, 1)
    with pytest.raises(FrameError, match="No text has a label"):
        specialisation(frame.assign(label=np.nan))
    with pytest.raises(FrameError, match="a corpus traced with labels"):
        specialisation(frame.drop(columns="label"))
    with pytest.raises(FrameError, match="two labels"):
        specialisation(frame.assign(label=frame["position"].astype(str)))


def test_specialisation_ignores_what_labels_are_called(frame):
    renamed = frame.assign(label=frame["label"].map({"a": "z", "b": "y"}))
    columns = ["information", "maximum"]
    assert_frame_equal(specialisation(frame)[columns], specialisation(renamed)[columns])


@pytest.fixture(scope="module")
def chance_p_values():
    """The smallest p-values of the layers and of the owners in 200 studies of random labels."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(200):
        texts = rng.dirichlet([1] * 3, (12, 1, 1)) + rng.dirichlet([1] * 3, (12, 1, 4))
        frame = make_frame(texts / 2, labels=rng.permutation(list("abcd" * 3)).tolist())
        asked = (specialisation(frame, permutations=100), label_owners(frame, permutations=100))
        found.append([table["p_value"].min() for table in asked])
    return np.array(found)


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_random_labels_are_called_significant_no_more_often_than_the_level(chance_p_values, level):
    studies = len(chance_p_values)
    most = level * studies + 2.33 * np.sqrt(studies * level * (1 - level))  # 99 % of the time
    for family in chance_p_values.T:
        assert (family <= level).sum() <= most
    assert (chance_p_values <= level / 2).any(axis=1).sum() <= most


def test_true_owners_are_found_among_many_labels_and_layers():
    rng = np.random.default_rng(4)
    labels = np.arange(30) % 3
    weights = 0.7 * rng.dirichlet([1] * 3, (30, 1, 4)) + 0.3 * np.eye(3)[labels][:, None, None]
    frame = make_frame(weights, labels=[EXPERTS[label] for label in labels])
    owners = label_owners(frame)
    assert owners["expert"].tolist() == owners["label"].tolist() == owners["top_expert"].tolist()
    assert (owners["p_value"] <= 0.025).all()
    assert (specialisation(frame)["p_value"] <= 0.025).all()


def test_routing_that_knows_no_labels_is_never_above_chance():
    frame = make_frame(np.full((8, 2, 2, 3), 1 / 3), labels=list("ab" * 4))
    assert specialisation(frame)["p_value"].tolist() == [1, 1]
    assert label_owners(frame)["p_value"].tolist() == [1, 1]
    table = specialisation(frame, permutations=0)
    assert table["baseline"].isna().all()
    assert table["p_value"].tolist() == [1, 1]


def test_label_shares_and_owners_by_hand():
    weights = np.zeros((4, 2, 2, 3))
    weights[:2, :, 0] = [0.6, 0.4, 0]  # the first layer tells nothing
    weights[2:, :, 0] = [0.6, 0.4, 0]
    weights[:2, :, 1] = [0.9, 0.1, 0]
    weights[2:, :, 1] = [0.5, 0.5, 0]  # sql is first everywhere, and yet math owns "b"
    frame = make_frame(weights, labels=["a", "a", "b", "b"])
    shares = label_shares(frame).set_index(["label", "expert"])
    assert shares.loc[("a", "sql"), "share"] == pytest.approx(0.75)
    assert shares.loc[("b", "math"), "excess"] == pytest.approx(0.1)
    assert shares["sequences"].tolist() == [2] * 6
    by_layer = label_shares(frame, by=("layer",)).set_index(["layer", "label", "expert"])
    assert by_layer.loc[(1, "b", "math"), "share"] == pytest.approx(0.5)
    owners = label_owners(frame).set_index("label")
    assert owners["expert"].tolist() == ["sql", "math"]
    assert owners["top_expert"].tolist() == ["sql", "sql"]
    assert owners["top_share"].tolist() == pytest.approx([0.75, 0.55])
    assert owners["layer"].tolist() == [1, 1]
    assert owners.loc["b", "layer_share"] == pytest.approx(0.5)
    with pytest.raises(FrameError, match="Every text has the label 'a'"):
        label_owners(frame.assign(label="a"))


def test_every_text_of_a_label_counts_the_same_however_long_it_is():
    weights = np.zeros((2, 5, 1, 3))
    weights[0, :, 0, 0] = 1
    weights[1, 0, 0, 1] = 1
    frame = make_frame(weights, labels=["a", "a"])
    frame = frame[(frame["sequence"] == 0) | (frame["position"] == 0)]
    assert label_shares(frame)["share"].tolist() == pytest.approx([0.5, 0.5, 0])


def test_comparison_against_a_loop(weights, frame):
    others = np.random.default_rng(9).dirichlet([1] * 3, (6, 5, 4))
    other = frame.assign(weight=others.ravel(), run="s")
    by_cell = compare_runs(frame, other, by=("sequence", "position", "layer"))
    expected = [jsd(weights[place], others[place]) for place in np.ndindex(6, 5, 4)]
    np.testing.assert_allclose(by_cell["jsd"], expected, atol=1e-12)
    by_layer = compare_runs(frame, other).set_index("layer")
    cells = np.array(expected).reshape(6, 5, 4)
    np.testing.assert_allclose(by_layer["jsd"], cells.mean((0, 1)))
    means = [jsd(weights[:, :, k].mean((0, 1)), others[:, :, k].mean((0, 1))) for k in range(4)]
    np.testing.assert_allclose(by_layer["jsd_of_means"], means)
    moved = np.abs(weights - others).sum(-1).mean((0, 1)) / 2
    np.testing.assert_allclose(by_layer["moved"], moved)


def test_a_run_does_not_differ_from_itself_and_disjoint_ones_differ_by_one_bit(frame):
    same = compare_runs(frame, frame.assign(run="again"))
    assert same[["jsd", "jsd_of_means", "moved"]].max(axis=None) == pytest.approx(0)
    ones = [make_frame(np.eye(3)[[e] * 4][None, :, None]) for e in (0, 1)]
    assert compare_runs(*ones)["jsd"].tolist() == pytest.approx([1])
    nothing = make_frame(np.zeros((1, 4, 1, 3)))
    assert compare_runs(ones[0], nothing)["jsd"].tolist() == pytest.approx([1])
    assert compare_runs(nothing, nothing)["jsd"].tolist() == pytest.approx([0])


def test_comparison_is_symmetric(frame):
    other = frame.assign(weight=frame["weight"] ** 2)
    assert_frame_equal(compare_runs(frame, other), compare_runs(other, frame))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f[f["sequence"] < 5], "only the first has sequence 5, position 0"),
        (lambda f: f.assign(token=f["token"].str.upper()), "position 0 one reads"),
        (lambda f: pd.concat([f, f.assign(run="t")]), "holds several runs"),
        (lambda f: f.assign(expert=f["expert"].cat.rename_categories({"sql": "db"})), "different"),
        (lambda f: f.drop(columns="token"), "keep the column token_id or token"),
    ],
)
def test_runs_that_cannot_be_aligned_say_why(frame, change, sentence):
    with pytest.raises(FrameError, match=sentence):
        compare_runs(frame, change(frame))


def test_experts_of_other_names_can_be_matched(frame):
    other = frame.assign(expert=frame["expert"].cat.rename_categories({"sql": "db"}))
    assert compare_runs(frame, other, experts={"db": "sql"})["jsd"].max() == pytest.approx(0)


def test_different_texts_are_compared_by_their_means(weights, frame):
    other = make_frame(weights[:2, :3], labels=["b", "a"])
    by_label = compare_runs(frame, other, by=("label",), aligned=False).set_index("label")
    expected = jsd(weights[[1, 3]].mean((0, 1, 2)), weights[0, :3].mean((0, 1)))
    assert by_label.loc["b", "jsd_of_means"] == pytest.approx(expected)
    assert "jsd" not in by_label
    assert len(compare_runs(frame, other, by=(), aligned=False)) == 1
    with pytest.raises(FrameError, match="no label in common"):
        compare_runs(frame, other.assign(label="c"), by=("label",), aligned=False)


def test_the_public_names_exist_and_are_sorted():
    assert all(hasattr(analysis, name) for name in analysis.__all__)
    assert analysis.__all__ == sorted(analysis.__all__)
