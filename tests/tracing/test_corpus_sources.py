"""Corpora of datasets: traced and evaluated as the same texts are."""

import json

import datasets
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from tiny_models import make_tiny_studio

from lmoe_studio.errors import ConfigError, DataError, StorageError
from lmoe_studio.tracing.corpus_files import survey
from lmoe_studio.tracing.corpus_sources import opened_corpus

TEXTS = ["SELECT 1", "a longer text than the others", "FROM users", "aeiou"]
LABELS = ["sql", "prose", "sql", "prose"]
CHAT = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Yes."}]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def studio():
    return make_tiny_studio()


@pytest.fixture
def dataset():
    datasets.disable_progress_bars()
    features = datasets.Features(
        {"text": datasets.Value("string"), "skill": datasets.ClassLabel(names=["sql", "prose"])}
    )
    return datasets.Dataset.from_dict({"text": TEXTS, "skill": LABELS}, features)


@pytest.fixture
def repository(tmp_path, dataset):
    folder = tmp_path / "repository"
    folder.mkdir()
    dataset.to_json(folder / "test.jsonl")
    return folder


def frame_of(studio, corpus, out, **options):
    frame = studio.trace_corpus(corpus, out=out, run="one", **options).frame()
    return frame.astype(dict.fromkeys(("label", "token"), str))


def test_a_dataset_is_traced_and_evaluated_as_its_texts_are(studio, dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "saved")
    expected = frame_of(studio, TEXTS, tmp_path / "texts", labels=LABELS)
    losses = studio.evaluate(TEXTS, labels=LABELS).frame
    streamed = dataset.to_iterable_dataset()
    for number, corpus in enumerate((dataset, streamed, tmp_path / "saved", dataset["text"])):
        of_column = number == 3
        labels = {"labels": LABELS} if of_column else {"label_column": "skill"}
        found = frame_of(studio, corpus, tmp_path / str(number), **labels)
        assert_frame_equal(found, expected)
        assert_frame_equal(studio.evaluate(corpus, **labels).frame, losses)


def test_a_run_over_a_repository_goes_on_with_the_rows_that_it_took(studio, repository, tmp_path):
    corpus, out = f"hf:{repository},split=test,take=3", tmp_path / "out"
    first = studio.trace_corpus(corpus, out=out, run="one", should_stop=lambda: True)
    assert not first.is_finished
    (repository / "test.jsonl").write_text('{"text": "other", "skill": 0}\n')
    run = studio.trace_corpus(corpus, out=out, run="one")
    assert (run.texts, run.is_finished) == (3, True)
    assert len(pd.read_parquet(out)) == len(run.frame())
    assert sorted(path.name for path in out.iterdir()) == ["_data", "run=one"]


def test_pairs_and_conversations_are_read_as_training_reads_them(studio, tmp_path):
    tokenizer = studio.base.tokenizer
    pairs = datasets.Dataset.from_dict({"instruction": ["A"], "input": ["B"], "output": ["C"]})
    with opened_corpus(pairs) as corpus:
        assert [item.text for item in corpus] == ["A\n\nB\nC"]
        assert survey(corpus).columns == ("instruction", "input", "output")
    chats = datasets.Dataset.from_dict({"conversations": [CHAT]})
    before = tokenizer.chat_template
    try:
        tokenizer.chat_template = TEMPLATE
        asked = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]
        ids = tokenizer.apply_chat_template(asked, return_dict=False)
        run = studio.trace_corpus(chats, out=tmp_path / "chats")
        assert run.tokens == len(ids)
    finally:
        tokenizer.chat_template = before


def test_what_is_none_is_refused_in_one_sentence(studio, dataset, tmp_path):
    with pytest.raises(DataError, match=r"no column 'topic'; .*text, skill"):
        studio.evaluate(dataset, label_column="topic")
    with pytest.raises(DataError, match=r"no column 'text'; .*question, answer"):
        studio.evaluate(datasets.Dataset.from_dict({"question": ["a"], "answer": ["b"]}))
    with pytest.raises(DataError, match="not ''"):  # no file, but a long text that was pasted
        studio.evaluate("a person pasted this " * 40)
    with pytest.raises(StorageError, match=r"is too long a name"):
        studio.trace_corpus(TEXTS, out=tmp_path / ("n" * 300))
    with pytest.raises(ConfigError, match="Labels go with texts"):
        studio.evaluate(dataset, labels=LABELS)
    with pytest.raises(ConfigError, match="spilt"):
        studio.evaluate("hf:user/name,spilt=x")
    file = tmp_path / "out" / "notes.txt"
    file.parent.mkdir()
    file.write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        studio.trace_corpus(dataset, out=tmp_path / "out")
    assert list(file.parent.iterdir()) == [file]


def test_a_file_with_other_columns_than_text_is_found(studio, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "A", "completion": "B"}) + "\n")
    assert studio.evaluate(path).tokens == studio.evaluate(["A\nB"]).tokens


UNITED = {
    "A\nB": {"prompt": "A", "response": "B"},
    "A\n\nC\nB": {"instruction": "A", "input": "C", "output": "B"},
    "Hi?\nYes.": {"conversations": CHAT},
    "T": {"text": "T"},
}


@pytest.mark.parametrize("nothing", [None, "", "  ", float("nan")])
def test_columns_of_united_files_that_are_empty_are_passed_over(tmp_path, nothing):
    empty = dict.fromkeys(("text", "prompt", "response", "instruction", "input", "output"), nothing)
    empty["conversations"] = None
    path = tmp_path / "united.jsonl"
    path.write_text("".join(json.dumps(empty | row) + "\n" for row in UNITED.values()))
    pd.read_json(path, lines=True).to_parquet(tmp_path / "united.parquet")
    for file in (path, tmp_path / "united.parquet"):
        with opened_corpus(file) as corpus:
            assert [item.text for item in corpus] == list(UNITED)
    with opened_corpus(path, text_column="prompt") as corpus:  # asked for by its name
        assert [item.text for item in corpus] == ["A"]


def test_a_template_that_refuses_a_conversation_names_the_line(studio, tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in UNITED.values()))
    before = studio.tokenizer.chat_template
    try:
        studio.tokenizer.chat_template = "{{ raise_exception('no') }}"
        for run in (studio.evaluate, lambda file: studio.trace_corpus(file, out=tmp_path / "out")):
            with pytest.raises(DataError, match=r"chats.jsonl, line 3: .*refuses .*no"):
                run(path)
    finally:
        studio.tokenizer.chat_template = before
