"""A corpus run equals single traces, goes on where it stopped, and refuses what is unsound."""

import json
import re
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pandas.testing import assert_frame_equal
from tiny_models import ROUTERS, make_tiny_studio
from tolerances import ONE_PASS

from analysis import label_owners, routing_frame, specialisation
from lmoe_studio.errors import ConfigError, DataError, PlanError, StorageError
from lmoe_studio.routing.plan import Override, RoutingPlan, TextMatch
from lmoe_studio.text_rows import column_names
from lmoe_studio.tracing import corpus as corpus_module, corpus_files, corpus_parts
from lmoe_studio.tracing.corpus_files import CorpusFile, CorpusTexts, survey
from lmoe_studio.tracing.corpus_parts import runs_in

TEXTS = ["SELECT 1", "a", "naïve — 日本 🎉", "a longer text than the others", "FROM users"]
LABELS = ["sql", "prose", None, "prose", "sql"]


@pytest.fixture(scope="module")
def studio():
    return make_tiny_studio()


@pytest.fixture
def small_parts(monkeypatch, studio):
    cells = len(studio.model.sites) * len(studio.bank.experts)
    monkeypatch.setattr(corpus_module, "PART_CELLS", 40 * cells)


def parts(out):
    return sorted(out.glob("run=*/part-*.parquet"))


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_a_run_equals_single_traces(router, tmp_path):
    studio = make_tiny_studio(router=router)
    plan = RoutingPlan([Override.pin({"sql": 0.3, "math": 0.1}, tokens=(0,))])
    options = {"plan": plan, "contributions": True}
    run = studio.trace_corpus(TEXTS, out=tmp_path / "x", scores=True, **options)
    assert (run.texts, run.is_finished, run.unlabelled) == (5, True, 5)
    expected = routing_frame([studio.trace(text, **options) for text in TEXTS])
    frame = run.frame().drop(columns=["run", "label"])
    frame["token"] = frame["token"].astype("str")
    assert_frame_equal(
        frame[expected.columns.drop("run")], expected.drop(columns="run"), **ONE_PASS
    )


def test_scores_bring_the_routers_own_weights_where_a_plan_may_have_changed_them(studio, tmp_path):
    plan = RoutingPlan([Override.solo("sql", tokens=(0,))])
    own = studio.trace("one text", plan=plan).router_weights
    kept = {
        (planned, scores): studio.trace_corpus(
            ["one text"], out=tmp_path / f"{planned}-{scores}", scores=scores,
            plan=plan if planned else None,
        ).frame()
        for planned in (False, True) for scores in (False, True)
    }  # fmt: skip
    assert [pair for pair, frame in kept.items() if "router_weight" in frame] == [(True, True)]
    np.testing.assert_allclose(kept[True, True]["router_weight"], own.ravel(), **ONE_PASS)


def test_pandas_reads_the_folder_and_answers_which_expert_handles_what(studio, tmp_path):
    run = studio.trace_corpus(TEXTS, labels=LABELS, out=tmp_path / "runs")
    frame = pd.read_parquet(tmp_path / "runs")
    assert (frame["run"] == run.run).all()
    assert frame["weight"].dtype == np.float32
    assert list(frame["expert"].cat.categories) == list(studio.bank.expert_names)
    by_text = frame.drop_duplicates("sequence")["label"].astype(object)
    assert [None if label != label else label for label in by_text] == LABELS
    assert set(label_owners(frame)["label"]) == {"sql", "prose"}
    assert len(specialisation(frame)) == 3
    only = run.frame(["sequence", "weight"])
    assert list(only.columns) == ["sequence", "weight", "run"]


def test_parts_do_not_change_what_is_read(studio, tmp_path, small_parts):
    run = studio.trace_corpus(TEXTS, labels=LABELS, out=tmp_path / "many", run="x")
    assert len(parts(tmp_path / "many")) > 1
    corpus_module.PART_CELLS = 10**6
    studio.trace_corpus(TEXTS, labels=LABELS, out=tmp_path / "one", run="x")
    assert len(parts(tmp_path / "one")) == 1
    frames = [pd.read_parquet(tmp_path / name) for name in ("many", "one")]
    for frame in frames:
        frame["token"], frame["label"] = frame["token"].astype("str"), frame["label"].astype("str")
    assert_frame_equal(*frames, **ONE_PASS)
    assert run.tokens == frames[0].groupby("sequence")["position"].nunique().sum()


def test_weights_are_kept_to_the_last_bit(studio, tmp_path):
    run = studio.trace_corpus(["one text"], out=tmp_path / "x")
    weights = studio.trace("one text").routing_weights
    np.testing.assert_array_equal(run.frame()["weight"].to_numpy(), weights.ravel())


def test_a_stopped_run_goes_on_with_what_is_missing(studio, tmp_path, small_parts):
    out, seen = tmp_path / "x", []
    calls = iter([False, True])
    stopped = studio.trace_corpus(TEXTS, out=out, should_stop=lambda: next(calls))
    assert not stopped.is_finished
    before = {path: path.stat().st_mtime_ns for path in parts(out)}
    assert len(before) == 1
    assert len(stopped.frame()["sequence"].unique()) == stopped.texts
    run = studio.trace_corpus(TEXTS, out=out, on_progress=seen.append)
    assert (run.is_finished, run.texts, run.run) == (True, 5, stopped.run)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished parts are kept"
    assert sorted(run.frame()["sequence"].unique()) == [0, 1, 2, 3, 4]
    assert [step.share for step in seen] == sorted(step.share for step in seen)
    assert seen[-1].share == 1


def test_two_that_write_one_run_are_both_right(studio, tmp_path, small_parts):
    """The second begins and ends while the first is at its first text."""
    seconds = []

    def once(_):
        if not seconds:
            seconds.append(studio.trace_corpus(TEXTS, out=tmp_path / "x", run="same"))

    first = studio.trace_corpus(TEXTS, out=tmp_path / "x", run="same", on_progress=once)
    assert first == seconds[0]
    assert sorted(first.frame()["sequence"].unique()) == [0, 1, 2, 3, 4]
    assert not list((tmp_path / "x").rglob("*.tmp"))


def test_a_damaged_part_is_traced_again(studio, tmp_path, small_parts):
    out = tmp_path / "x"
    run = studio.trace_corpus(TEXTS, out=out)
    before = run.frame()
    damaged = parts(out)[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert_frame_equal(studio.trace_corpus(TEXTS, out=out).frame(), before)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"corpus": [*TEXTS, "one more"]}, "another data"),
        ({"labels": LABELS}, "another data"),
        ({"max_tokens": 3}, "max_tokens None, not 3"),
        ({"contributions": True}, "contributions False, not True"),
        ({"plan": RoutingPlan([Override.solo("sql")])}, "plan None, not"),
    ],
)
def test_a_run_of_something_else_is_not_gone_on_with(studio, tmp_path, change, sentence):
    studio.trace_corpus(TEXTS, out=tmp_path)
    with pytest.raises(ConfigError, match=sentence):
        studio.trace_corpus(**({"corpus": TEXTS, "out": tmp_path} | change))


def test_a_run_in_another_precision_is_not_gone_on_with(studio, tmp_path):
    studio.trace_corpus(TEXTS, out=tmp_path, run="first")
    studio.model.base.to(torch.bfloat16)
    with pytest.raises(ConfigError, match=r"weights 'torch.float32', not 'torch.bfloat16'"):
        studio.trace_corpus(TEXTS, out=tmp_path, run="first")


def test_a_run_of_another_checkpoint_is_not_gone_on_with(studio, tmp_path):
    studio.trace_corpus(TEXTS, out=tmp_path, run="first")
    other = make_tiny_studio(seed=7)
    with pytest.raises(ConfigError, match="another bank"):
        other.trace_corpus(TEXTS, out=tmp_path, run="first")
    other.trace_corpus(TEXTS, out=tmp_path, run="second")
    frame = pd.read_parquet(tmp_path)
    assert set(frame["run"]) == {"first", "second"}


def test_long_texts_are_cut_and_counted(studio, tmp_path):
    run = studio.trace_corpus(["x" * 200, "short"], out=tmp_path / "a")
    assert (run.cut, run.tokens) == (1, 128 + 5)
    run = studio.trace_corpus(["x" * 200, "short"], out=tmp_path / "b", max_tokens=4)
    assert (run.cut, run.tokens) == (2, 8)


def test_a_full_disk_leaves_finished_parts_readable(studio, tmp_path, small_parts, monkeypatch):
    out, written = tmp_path / "x", pq.write_table

    def write(table, path, **options):
        if list(out.rglob("part-00000.parquet")):  # the second part has a name of its own as yet
            Path(path).write_bytes(b"half a fi")
            raise OSError(28, "No space left on device")
        return written(table, path, **options)

    monkeypatch.setattr(corpus_parts.pq, "write_table", write)
    with pytest.raises(StorageError, match=r"No space left on device.*1 finished parts stay"):
        studio.trace_corpus(TEXTS, out=out)
    assert len(pd.read_parquet(out)) > 0
    assert not list(out.rglob("*.tmp"))
    monkeypatch.undo()
    assert studio.trace_corpus(TEXTS, out=out).is_finished


def test_a_folder_with_other_files_and_names_that_are_none_are_refused(studio, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds other files \(notes.txt\)"):
        studio.trace_corpus(TEXTS, out=tmp_path)
    for name in ("../up", "a/b", "", "1", "x" * 99):
        with pytest.raises(ConfigError, match="A run is named with letters"):
            studio.trace_corpus(TEXTS, out=tmp_path / "x", run=name)
    with pytest.raises(StorageError, match="cannot be used"):
        studio.trace_corpus(TEXTS, out=tmp_path / "notes.txt" / "x")


def test_a_plan_for_a_text_holds_where_each_text_has_it(studio, tmp_path):
    plan = RoutingPlan([Override.solo("math", tokens=TextMatch(text="long"))])
    run = studio.trace_corpus(TEXTS, out=tmp_path / "x", plan=plan)
    frame = run.frame().query("expert == 'math' and weight == 1")
    assert set(frame["token"].astype(str)) == set("long")
    assert set(frame["sequence"]) == {3}


def test_a_plan_that_does_not_fit_is_refused(studio, tmp_path):
    plan = RoutingPlan([Override.solo("sqll")])
    with pytest.raises(PlanError, match="'sqll'"):
        studio.trace_corpus(TEXTS, out=tmp_path, plan=plan)
    stopped = studio.trace_corpus(TEXTS, out=tmp_path, max_tokens=2, should_stop=lambda: True)
    assert not stopped.is_finished
    run = studio.trace_corpus(TEXTS, out=tmp_path)
    assert runs_in(tmp_path) == [run.run], "what was hardly begun is in nobody's way"


def test_memory_does_not_grow_with_the_corpus(studio, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module, "PART_CELLS", 3000)
    peaks = []
    for count in (40, 240):
        path = tmp_path / f"{count}.txt"
        path.write_text("".join(f"text number {n:05}\n" for n in range(count)))
        studio.trace_corpus(path, out=tmp_path / f"warm-{count}")
        tracemalloc.start()
        studio.trace_corpus(path, out=tmp_path / f"run-{count}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 100_000, peaks


# Files

ROWS = [{"body": "SELECT 1", "skill": "sql"}, {"body": "b, \"q\"\nc", "skill": None},
        {"body": "  ", "skill": "x"}, {"body": "日本", "skill": "1.5"}]  # fmt: skip


def write(path, rows=ROWS):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8-sig")
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_files_give_texts_and_labels(tmp_path, suffix):
    path = write(tmp_path / f"corpus{suffix}")
    items = list(CorpusFile(path, "body", "skill"))
    assert [(i.text, i.label) for i in items] == [
        ("SELECT 1", "sql"), ('b, "q"\nc', None), ("日本", "1.5"),
    ]  # fmt: skip
    assert column_names(path) == ["body", "skill"]
    found = survey(CorpusFile(path, "body", "skill"))
    assert (found.texts, found.labels) == (3, {"sql": 1, "1.5": 1})


def test_a_text_file_gives_a_text_a_line(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"one\r\n\ntwo")
    assert [item.text for item in CorpusFile(path)] == ["one", "two"]
    assert column_names(path) == ["text"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b"", "holds no text"),
        ("a.jsonl", b"\n \n", "holds no text"),
        ("a.jsonl", b"{broken", "line 1: no JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1: no JSON"),
        ("a.jsonl", b'"text"', "expected an object with columns, got str"),
        ("a.jsonl", b'{"txet": "a"}', "no column 'text'; did you mean 'txet'"),
        ("a.jsonl", b'{"text": 7}', "'text' is int, not text"),
        ("a.jsonl", b'{"text": "' + b"x" * 1_100_000 + b'"}', "line 1: longer than"),
        ("a.jsonl", '{"text": "ä"}'.encode("utf-16"), "not UTF-8 text"),
        ("a.jsonl", bytes(range(256)), "not UTF-8 text|no JSON|binary"),
        ("a.txt", b"abc\0def", "binary file"),
        ("a.csv", b"text\n", "holds no text"),
        ("a.csv", b"other\nx\n", "no column 'text'"),
        ("a.csv", b"text\na,b\n", "line 2: more cells than the header"),
        ("a.csv", b'text\n"open\n' + b"x" * 300_000, "no sound CSV"),
        (
            "a.csv",
            b'text\n"' + b"x\n" * 500_001 + b'"',
            r"no sound CSV \(field larger than field limit",
        ),
        ("a.csv", b"text\n" + b"x" * 1_000_001, "longer than|field larger"),
        ("a.csv", b"text,text\na,b\n", "line 1: there are two columns 'text'"),
        ("a.csv", b"id,text,id\n1,a,2\n", "line 1: there are two columns 'id'"),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"text": "b", "text": "c"}',
            "line 2: no JSON .'text' occurs twice",
        ),
        ("a.jsonl", b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "line 1: .*thousands of digits"),
        ("a.jsonl", b'{"text": "a", "n": ' + b"[" * 500 + b"]" * 500 + b"}", "nested too deeply"),
        ("a.jsonl", b'{"text": "' + b"x" * 8_000_000 + b'"}', "line 1: longer than 8,000,000"),
        ("a.txt", b"x" * 1_100_000, "line 1: longer than"),
        ("a.csv", b"", "holds no text"),
        ("a.parquet", b"PAR1 nonsense", "no Parquet file"),
        ("a.parquet", b"", "no Parquet file"),
        ("a.pdf", b"%PDF", "expected a .jsonl, .csv, .parquet or .txt file, not '.pdf'"),
    ],
)
def test_unsound_files_are_refused_in_one_sentence(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as error:
        survey(CorpusFile(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_what_is_not_there_is_said(tmp_path, studio):
    for path in (tmp_path / "none.jsonl", tmp_path / "none.parquet", tmp_path / "none.csv"):
        with pytest.raises(DataError, match=f"{re.escape(path.name)} cannot be read: No such"):
            survey(CorpusFile(path))
    parquet = write(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'text'"):
        survey(CorpusFile(parquet))
    with pytest.raises(DataError, match="no column 'topic'"):
        survey(CorpusFile(parquet, "body", "topic"))


@pytest.mark.parametrize(
    ("texts", "labels", "sentence"),
    [
        (["a", "b"], ["x"], "2 texts came with 1 labels"),
        (pd.Series(["a"]), np.array([]), "1 texts came with 0 labels"),
        (["a", 7], None, "Text 2 is int"),
        ([], None, "The corpus holds no text"),
        (pd.Series([None, np.nan]), None, "The corpus holds no text"),
        (pd.DataFrame({"text": ["a"]}), None, "got DataFrame; of a table give one column"),
        (pa.table({"text": ["a"]}), None, "got Table; of a table give one column"),
        ({"text": ["a"]}, None, "got dict"),
        (["a", "b"], "ab", "Expected the labels one by one.*got str"),
        (7, None, "Expected the texts as a list or a column, and got int"),
        (np.array("a"), None, "Expected the texts as a list"),
        (np.array([["a"]]), None, "Text 1 is ndarray"),
    ],
)
def test_unsound_texts_are_refused_in_one_sentence(studio, tmp_path, texts, labels, sentence):
    for ask in (partial(studio.trace_corpus, out=tmp_path / "x"), studio.evaluate):
        with pytest.raises(DataError, match=sentence):
            ask(texts, labels=labels)


# A text that is missing in the middle, and a label that is.
COLUMN = ["SELECT 1", None, "naïve 東京", "FROM users"]
KINDS = ["sql", "gone", None, "sql"]


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (COLUMN, KINDS),
        (tuple(COLUMN), iter(KINDS)),
        ((text for text in COLUMN), (label for label in KINDS)),
        (pd.Series(COLUMN, index=[3, 3, 1, 0]), pd.Series(KINDS, index=list("abcd"))),
        (pd.Series(COLUMN, dtype="string"), pd.Series(KINDS, dtype="category")),
        (pd.Series(COLUMN, dtype=object), pd.Series(["sql", "gone", pd.NaT, "sql"], dtype=object)),
        (pd.Series(COLUMN).astype(pd.ArrowDtype(pa.string())), pd.Index(KINDS)),
        (np.array(COLUMN, object), np.array(["sql", "gone", np.nan, "sql"], object)),
        (np.array(["SELECT 1", " ", "naïve 東京", "FROM users"]), ["sql", "gone", pd.NA, "sql"]),
        (pa.array(COLUMN), pa.array(KINDS).dictionary_encode()),
        (pa.chunked_array([COLUMN[:1], COLUMN[1:]]), KINDS),
    ],
)
def test_columns_of_every_library_are_what_lists_are(studio, tmp_path, texts, labels):
    corpus = CorpusTexts(texts, labels)
    assert [(item.text, item.label) for item in corpus] == [
        ("SELECT 1", "sql"), ("naïve 東京", None), ("FROM users", "sql"),
    ]  # fmt: skip
    assert corpus.sha256() == CorpusTexts(COLUMN, KINDS).sha256()
    assert {type(item.text) for item in corpus} == {str}


def test_labels_are_names_whatever_they_were():
    named = [item.label for item in CorpusTexts(["a"] * 3, ["\ud800", np.int64(3), True])]
    assert named == ["?", "3", "True"]
    assert [item.label for item in CorpusTexts(["a", "b"], torch.tensor([1, 2]))] == ["1", "2"]
    with pytest.raises(DataError, match=r"Text 2: its label is a number of thousands of digits"):
        list(CorpusTexts(["a", "b"], [1, 10**5000]))


def test_a_data_frame_is_traced_and_evaluated_as_lists_are(studio, tmp_path):
    frame = pd.DataFrame({"text": COLUMN, "label": KINDS})
    runs = [
        studio.trace_corpus(texts, labels=labels, out=tmp_path / "x", run="same")
        for texts, labels in [
            (frame.text, frame.label),
            (COLUMN, KINDS),
            (iter(COLUMN), iter(KINDS)),
        ]
    ]
    assert {(run.texts, run.unlabelled) for run in runs} == {(3, 1)}
    losses = studio.evaluate(frame.text, labels=frame.label).frame
    assert_frame_equal(losses, studio.evaluate(COLUMN, labels=KINDS).frame)


def test_a_parquet_bomb_stops_before_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "bomb.parquet"
    texts = pa.array(["x" * 900_000]).dictionary_encode().take(pa.array([0] * 5000))
    pq.write_table(pa.table({"text": texts}), path)
    assert path.stat().st_size < 200_000
    monkeypatch.setattr(corpus_files, "MAX_CORPUS", 50_000_000)
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match="more than 50,000,000 characters"):
        survey(CorpusFile(path))
    assert pa.total_allocated_bytes() - before < 100_000_000


def test_a_text_is_read_up_to_the_limit_that_is_stated(tmp_path):
    text = "é\n" * 500_000
    pd.DataFrame({"text": [text], "label": ["x"]}).to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text, "label": "x"}))
    (tmp_path / "a.txt").write_bytes(b"x" * 1_000_000 + b"\r\n")
    for name in ("a.csv", "a.jsonl"):
        assert [len(item.text) for item in CorpusFile(tmp_path / name, "text", "label")] == [
            1_000_000
        ]
    assert survey(CorpusFile(tmp_path / "a.txt")).characters == 1_000_000


def test_odd_parquet_files_are_refused_with_their_row(tmp_path):
    path = tmp_path / "a.parquet"
    twice = pa.schema([("text", pa.string()), ("text", pa.string())])
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], schema=twice), path)
    with pytest.raises(DataError, match=r"a\.parquet: there are two columns 'text'"):
        survey(CorpusFile(path))
    pq.write_table(pa.table({"text": pa.array([b"ok", b"\xff"]).view(pa.string())}), path)
    with pytest.raises(DataError, match="row 2: the cell of 'text' cannot be read"):
        survey(CorpusFile(path))
    days = pa.array([0, 10**15]).cast(pa.timestamp("ms"))
    pq.write_table(pa.table({"text": ["a", "b"], "day": days}), path)
    with pytest.raises(DataError, match="row 2: the cell of 'day' cannot be read"):
        survey(CorpusFile(path, "text", "day"))


def test_columns_without_a_name_may_be_many(tmp_path):
    (tmp_path / "a.csv").write_text("text,,\na,,\n")
    assert survey(CorpusFile(tmp_path / "a.csv")).texts == 1


def test_nan_labels_are_no_labels(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"text": ["a", "b"], "label": [np.nan, 2.0]}).to_parquet(path)
    assert [item.label for item in CorpusFile(path, "text", "label")] == [None, "2.0"]


def test_lone_surrogates_are_replaced(studio, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a\\ud800b"}\n')
    assert studio.trace_corpus(path, out=tmp_path / "x").tokens == 3


def test_labels_are_those_of_the_texts_that_have_tokens(studio, tmp_path, monkeypatch):
    """A text may have none, though it is not blank."""
    whole = studio._ids.first
    monkeypatch.setattr(
        studio._ids, "first", lambda text, *more: [] if "\u200b" in text else whole(text, *more)
    )
    texts, labels = ["ab", "\u200b", "cde", "f"], ["first", "nothing", "third", "fourth"]
    run = studio.trace_corpus(texts, labels=labels, out=tmp_path / "run")
    seen = run.frame().groupby("sequence")["label"].unique()
    assert {number: list(found) for number, found in seen.items()} == {
        0: ["first"], 2: ["third"], 3: ["fourth"]
    }  # fmt: skip
