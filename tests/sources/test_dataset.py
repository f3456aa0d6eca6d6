"""Rows of datasets: saved, given, and laid out as on the hub; nothing of them is run."""

import json
import pickle
import subprocess
import sys

import datasets
import pyarrow as pa
import pytest

from lmoe_studio.errors import DataError, HubError
from lmoe_studio.sources.dataset import dataset_rows
from lmoe_studio.sources.kept import kept_rows
from lmoe_studio.sources.named import DatasetSource, as_source
from lmoe_studio.text_rows import column_names, read_rows, sha256


def texts(rows):
    return [row["text"] for _, row in rows]


def of(folder, **options):
    return DatasetSource(dataset=str(folder), **options)


def test_a_saved_dataset_is_read_like_a_file(saved):
    rows = list(read_rows(saved / "test"))
    assert rows[1] == (f"{saved / 'test'}, row 2", {"text": "test 1", "skill": "french"})
    assert [row["skill"] for _, row in rows] == ["sql", "french", "french", "sql", None, None]
    assert column_names(saved / "test") == ["text", "skill"]
    assert next(read_rows(saved / "test", ["text"]))[1] == {"text": "test 0", "skill": None}


def test_of_several_splits_train_is_taken_or_the_one_that_is_named(saved):
    assert texts(read_rows(saved)) == [f"train {n}" for n in range(6)]
    assert texts(dataset_rows(of(saved, split="test", take=2))) == ["test 0", "test 1"]
    with pytest.raises(DataError, match=r"no split 'dev'; .*train, test"):
        list(dataset_rows(of(saved, split="dev")))


def test_a_saved_dataset_has_another_hash_when_anything_in_it_changes(saved):
    before = sha256(saved)
    state = saved / "train" / "state.json"
    state.write_text(state.read_text() + " ")
    assert sha256(saved) != before


def test_configs_and_splits_of_a_repository(repository):
    rows = list(dataset_rows(of(repository, config="pairs", take=2)))
    assert rows == [
        (f"{repository}, config pairs, row {n + 1}", {"id": n, "prompt": f"train {n}?", "completion": f"{n}."})
        for n in range(2)
    ]  # fmt: skip
    assert len(list(dataset_rows(of(repository, config="pairs", split="test")))) == 4
    [chat, *_] = dataset_rows(of(repository, config="chats"))
    assert [turn["from"] for turn in chat[1]["conversations"]] == ["human", "gpt"]
    with pytest.raises(DataError, match="config"):
        list(dataset_rows(of(repository)))  # there are two
    with pytest.raises(DataError, match=r"config 'none'|'none' not found"):
        list(dataset_rows(of(repository, config="none")))


def test_columns_of_other_names_are_named(repository):
    renamed = of(repository, config="pairs", columns={"text": "completion"}, take=1)
    assert texts(dataset_rows(renamed)) == ["0."]
    with pytest.raises(DataError, match="no column 'complete'; did you mean 'completion'"):
        list(dataset_rows(of(repository, config="pairs", columns={"text": "complete"})))


@pytest.mark.parametrize(
    "make",
    [
        lambda: datasets.Dataset.from_dict({"text": ["a", "b"]}),
        lambda: (
            datasets.Dataset.from_dict({"text": ["b", "a"]}).select([1, 0]).with_format("numpy")
        ),
        lambda: datasets.Dataset.from_dict({"text": ["a", "b"]}).to_iterable_dataset(),
        lambda: datasets.DatasetDict({"dev": datasets.Dataset.from_dict({"text": ["a", "b"]})}),
        lambda: datasets.Dataset.from_dict({"n": [1, 2]}).with_transform(
            lambda rows: {"text": ["_ab"[n] for n in rows["n"]]}
        ),
    ],
    ids=["dataset", "indices", "stream", "dictionary", "transform"],
)
def test_objects_give_the_rows_that_they_mean(make):
    assert [row.get("text") for _, row in dataset_rows(as_source(make()), ["text", "n"])] == [
        "a",
        "b",
    ]


def test_rows_of_a_name_are_taken_once_and_those_of_an_object_each_time(repository, tmp_path):
    source = of(repository, config="pairs", take=3)
    file = kept_rows(source, tmp_path / "kept", ("prompt", "completion"))
    before = file.read_bytes()
    (repository / "pairs" / "train.jsonl").write_text('{"prompt": "x", "completion": "y"}\n')
    assert kept_rows(source, tmp_path / "kept", ("prompt", "completion")) == file
    assert file.read_bytes() == before
    assert json.loads(before.splitlines()[0]) == {"prompt": "train 0?", "completion": "0."}
    assert kept_rows(source, tmp_path / "kept", ("prompt", "completion"), anew=True) == file
    assert file.read_bytes() != before
    one, two = (as_source(datasets.Dataset.from_dict({"text": [text]})) for text in "ab")
    assert texts(read_rows(kept_rows(one, tmp_path / "given", ("text",)))) == ["a"]
    assert texts(read_rows(kept_rows(two, tmp_path / "given", ("text",)))) == ["b"]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("hf:user/name", {"dataset": "user/name"}),
        ("hf:squad,split=test,take=5", {"dataset": "squad", "split": "test", "take": 5}),
        ("hf:u/n, config=x ,revision=abc", {"dataset": "u/n", "config": "x", "revision": "abc"}),
    ],
)
def test_a_dataset_is_named_in_one_line(line, values):
    assert as_source(line) == DatasetSource(**values)


@pytest.mark.parametrize("line", ["hf:", "hf:a/b/c", "hf:u/n,test", "hf:u/n,spilt=x", "hf:u/n,take=0", "hf:u n"])  # fmt: skip
def test_a_line_that_names_none_is_refused(line):
    with pytest.raises(ValueError, match="hf:"):
        as_source(line)


class _Runs:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def test_nothing_of_a_folder_is_run(tmp_path):
    pickled = pickle.dumps(_Runs())
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "train.pkl").write_bytes(pickled)
    with pytest.raises(DataError, match=r"not read here|cannot be opened"):
        list(dataset_rows(of(folder)))
    script = tmp_path / "script"
    script.mkdir()
    (script / "script.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(DataError, match="cannot be opened"):
        list(dataset_rows(of(script)))
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
    [arrow] = (tmp_path / "saved").glob("*.arrow")
    field = pa.field(
        "text", pa.string(),
        metadata={"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickled},
    )  # fmt: skip
    schema = pa.schema([field])
    with pa.ipc.new_stream(arrow, schema) as out:
        out.write_table(pa.table({"text": ["a"]}).cast(schema))
    try:
        rows = texts(read_rows(tmp_path / "saved"))
    except DataError:
        rows = ["a"]
    assert rows == ["a"]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("state.json", {"_data_files": [{"filename": "../data.arrow"}]}, "files of this folder"),
        ("state.json", {"_data_files": None}, "files of this folder"),
        ("state.json", {"_data_files": [{"filename": "gone.arrow"}]}, "cannot be read"),
        ("dataset_info.json", {"features": {"text": {"_type": "Path"}}}, "kind 'Path'"),
        ("state.json", "{", "no sound JSON"),
        ("data-00000-of-00001.arrow", "x", "cannot be read"),
    ],
)
def test_a_damaged_saved_dataset_is_refused_in_one_sentence(saved, file, change, message):
    path = saved / "train" / file
    text = json.dumps(json.loads(path.read_text()) | change) if isinstance(change, dict) else change
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_rows(saved / "train"))


def test_a_folder_that_is_no_saved_dataset_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none that `save_to_disk` has written; .*hf:"):
        list(read_rows(tmp_path))
    with pytest.raises(DataError, match="is no folder"):
        list(dataset_rows(of(tmp_path / "gone")))


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    code = (
        "from lmoe_studio.sources.dataset import dataset_rows\n"
        "from lmoe_studio.sources.named import as_source\n"
        "from lmoe_studio.errors import HubError\n"
        "try: list(dataset_rows(as_source('hf:user/name')))\n"
        "except HubError as error: print(error)\n"
    )
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.count("\n") == 1
    assert "hub could not be asked for that dataset" in told.stdout
    assert HubError.__name__ not in told.stderr


def test_the_library_is_imported_only_for_a_dataset():
    code = (
        "import sys, lmoe_studio.cli, lmoe_studio.training.config, lmoe_studio.text_rows\n"
        "sys.exit('datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
