"""Losses by label equal those of single traces, whatever the batching, and add up."""

import json

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from tiny_models import make_tiny_studio

from lmoe_studio.causal import evaluation
from lmoe_studio.causal.evaluation import BEST_PER_TEXT, BEST_PER_TOKEN
from lmoe_studio.causal.oracle import alone, usual_plans
from lmoe_studio.errors import ConfigError, DataError, PlanError
from lmoe_studio.routing.plan import Override, RoutingPlan, TextMatch

TEXTS = ["SELECT 1", "a", "naïve — 日本 🎉", "a longer text than the others", "FROM users"]
LABELS = ["sql", "prose", None, "prose", "sql"]
EXPERTS = ("sql", "prose", "math")


@pytest.fixture(scope="module")
def studio():
    return make_tiny_studio()


def by_hand(studio, plan, label):
    losses = [
        -studio.trace(text, plan=plan).logprobs[1:]
        for text, own in zip(TEXTS, LABELS, strict=True)
        if own == label
    ]
    return np.concatenate(losses)


@pytest.mark.parametrize("group", [65_536, 10])
def test_every_plan_equals_single_traces(studio, monkeypatch, group):
    monkeypatch.setattr(evaluation, "_GROUP_TOKENS", group)
    found = studio.evaluate(TEXTS, labels=LABELS)
    assert (found.texts, found.unlabelled, found.cut) == (5, 1, 0)
    for label in ("sql", "prose", None):
        own = found.frame["label"].isna() if label is None else found.frame["label"] == label
        rows = found.frame[own].set_index("plan")
        for name, plan in usual_plans(EXPERTS).items():
            losses = by_hand(studio, plan, label)
            assert rows.loc[name, "loss"] == pytest.approx(losses.mean(), abs=1e-4)
            assert rows.loc[name, "tokens"] == len(losses)
        solo = [by_hand(studio, usual_plans(EXPERTS)[alone(name)], label) for name in EXPERTS]
        assert rows.loc[BEST_PER_TOKEN, "loss"] == pytest.approx(np.min(solo, 0).mean(), abs=1e-4)
    table = found.table()
    assert list(table.columns) == ["sql", "prose", "(no label)", "mean"]
    assert (table.loc[BEST_PER_TOKEN] <= table.loc[BEST_PER_TEXT] + 1e-6).all()
    singles = table.loc[[alone(name) for name in EXPERTS]]
    assert (table.loc[BEST_PER_TEXT] <= singles.min() + 1e-6).all()


def test_without_labels_all_texts_are_one_group(studio):
    table = studio.evaluate(TEXTS).table()
    assert list(table.columns) == ["all texts"]


@pytest.mark.parametrize(
    ("sql", "prose", "columns"),
    [
        ("mean", "prose", ["mean", "prose", "(no label)", "mean'"]),
        ("mean", "mean'", ["mean", "mean'", "(no label)", "mean''"]),
        ("(no label)", "all texts", ["(no label)", "all texts", "(no label)'", "mean"]),
        ("plan", "loss", ["plan", "loss", "(no label)", "mean"]),
    ],
)
def test_labels_of_the_tables_own_names_have_columns_of_their_own(studio, sql, prose, columns):
    names = {"sql": sql, "prose": prose, None: None}
    table = studio.evaluate(TEXTS, labels=[names[label] for label in LABELS]).table()
    assert sorted(table.columns[:3]) == sorted(columns[:3])
    assert table.columns[3] == columns[3]
    plain = studio.evaluate(TEXTS, labels=LABELS).table()
    for own, name in zip(("sql", "prose", "(no label)", "mean"), columns, strict=True):
        np.testing.assert_allclose(table[name], plain[own], atol=1e-6)


def test_a_plan_of_ones_own_is_compared_also_where_it_asks_for_texts(studio):
    plan = RoutingPlan([Override.solo("math", tokens=TextMatch(text="SELECT"))])
    found = studio.evaluate(TEXTS, labels=LABELS, plans={"mine": plan})
    expected = by_hand(studio, plan, "sql").mean()
    assert found.table().loc["mine", "sql"] == pytest.approx(expected, abs=1e-4)
    for name in ("router", "base", "only sql", BEST_PER_TEXT, BEST_PER_TOKEN):
        with pytest.raises(ConfigError, match=f"named '{name}'"):
            studio.evaluate(TEXTS, plans={name: plan})
    with pytest.raises(PlanError, match="no expert"):
        studio.evaluate(TEXTS, plans={"mine": RoutingPlan([Override.solo("nobody")])})


def test_long_texts_are_cut_and_counted(studio):
    found = studio.evaluate([TEXTS[3], "x" * 1000], max_tokens=20)
    assert (found.cut, found.tokens) == (2, 2 * 19)
    whole = studio.evaluate(["x" * 1000])  # the model reads 128
    assert (whole.cut, whole.tokens) == (1, 127)


def test_progress_ends_at_all(studio):
    steps = []
    studio.evaluate(TEXTS, labels=LABELS, on_progress=steps.append)
    assert (steps[-1].texts, steps[-1].of_texts) == (5, 5)
    assert steps[-1].share <= 1
    assert [step.share for step in steps] == sorted(step.share for step in steps)


def test_a_corpus_without_anything_to_foretell_is_refused(studio, tmp_path):
    with pytest.raises(DataError, match="two tokens"):
        studio.evaluate(["a", "b"])
    found = studio.evaluate(["a", "two"], labels=["short", "long"])
    assert np.isnan(found.table().loc["router", "short"])
    (tmp_path / "x.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no text"):
        studio.evaluate(tmp_path / "x.jsonl")


def test_a_file_gives_the_same_as_its_texts(studio, tmp_path):
    rows = [{"body": t, "skill": s} for t, s in zip(TEXTS, LABELS, strict=True)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one = studio.evaluate(tmp_path / "x.jsonl", text_column="body", label_column="skill")
    assert_frame_equal(one.frame, studio.evaluate(TEXTS, labels=LABELS).frame)
    assert isinstance(one.frame, pd.DataFrame)
    with pytest.raises(ConfigError, match="label_column"):
        studio.evaluate(tmp_path / "x.jsonl", labels=LABELS)


def test_one_expert_has_nothing_to_choose_from():
    found = make_tiny_studio(ranks=(4,)).evaluate(TEXTS)
    assert BEST_PER_TOKEN not in set(found.frame["plan"])
