"""What the Train tab's form gives: options from the config, texts from allowed places, files and back."""

import json
import zipfile
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, disable_progress_bars
from hypothesis import given, strategies as st

from lmoe_studio.config import EMBEDDED_BASE
from lmoe_studio.errors import ConfigError, DataError
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.text_rows import read_rows
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.ui.training.example import EXAMPLE
from lmoe_studio.ui.training.form import (
    Known,
    command,
    config_text,
    form_config,
    read_config_text,
    write_archive,
)
from lmoe_studio.ui.training.options import (
    ELSEWHERE,
    GROUPS,
    OF_EXPERTS,
    option_values,
    read_options,
    shown_values,
    training_options,
)
from lmoe_studio.ui.training.presets import PRESETS, SET
from lmoe_studio.ui.training.texts import MOST_EXPERTS, GivenTexts, Places, read_texts

OPTIONS = training_options()
disable_progress_bars()
SKILLS = [{"name": "a", "train": ["a.txt"]}, {"name": "b", "train": ["b.txt"]}]


def parsed(values, **more):
    whole = {"name": "x", "out": "x", "skills": SKILLS} | values | more
    return TrainingConfig.parse(whole, source="test")


# Options


def test_the_form_has_every_field_of_the_config_once():
    paths = [option.path for option in OPTIONS]
    assert len(set(paths)) == len(paths)
    assert {path[0] for path in paths} == set(TrainingConfig.model_fields) - set(ELSEWHERE)
    router = {path[1] for path in paths if path[0] == "router"}
    assert router == set(type(TrainingConfig.model_fields["router"].default).model_fields)
    known = [name for names in GROUPS.values() for name in names]
    assert len(set(known)) == len(known)
    assert set(known) <= set(TrainingConfig.model_fields)
    assert set(OF_EXPERTS) <= set(known)


def test_the_form_untouched_is_the_config_untouched():
    assert parsed(option_values(shown_values({}))) == parsed({})


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "steps": st.integers(1, 10_000),
            "alpha": st.none() | st.floats(0.1, 100),
            "target_modules": st.lists(st.sampled_from(["q_proj", "up_proj"]), min_size=1),
            "gradient_checkpointing": st.booleans(),
            "early_stopping": st.none() | st.integers(1, 9),
            "composition": st.sampled_from(["output", "factor"]),
            "quantize": st.none() | st.sampled_from(["4bit", "8bit"]),
            "router": st.fixed_dictionaries(
                {},
                optional={
                    "top_k": st.none() | st.integers(1, 4),
                    "scope": st.sampled_from(["layer", "shared", "module"]),
                    "threshold": st.sampled_from([None, {}, {"limit": 0.25, "rule": "margin"}]),
                },
            )
            | st.just({"kind": "blend", "blend": {"a": 0.25, "b": 0.75}}),
        },
    )
)
def test_any_config_is_the_same_through_the_form(values):
    config = parsed(values)
    shown = json.loads(json.dumps(shown_values(config.model_dump(mode="json"))))
    assert parsed(option_values(shown)) == config


def test_help_tells_the_bounds():
    rank = next(option for option in OPTIONS if option.path == ("rank",))
    assert rank.help == "Rank of every expert. 1 or more, at most 1,024."
    top_k = next(option for option in OPTIONS if option.path == ("router", "top_k"))
    assert top_k.label == "router · top k"
    assert top_k.may_be_empty


def test_an_empty_field_is_none_only_where_none_means_something():
    assert option_values({"alpha": None})["alpha"] is None
    with pytest.raises(ConfigError, match="steps: it is empty; the usual is 300"):
        option_values({"steps": None})
    with pytest.raises(ConfigError, match="router · options: expected `name: value"):
        option_values({"router.options": "a: b: c"})


def test_options_of_a_kind_of_router_are_written_as_in_a_file():
    router = RouterSettings(kind="blend", options={"weights": {"sql": 1.5}})
    shown = shown_values({"router": router.model_dump(mode="json")})
    assert shown["router.options"] == "weights: {sql: 1.5}"
    assert parsed(option_values(shown)).router == router
    braced = shown | {"router.options": "{weights: {sql: 1.5}}"}
    assert parsed(option_values(braced)).router == router


def test_a_bank_to_start_from_brings_the_options_of_its_experts():
    shown = shown_values({"rank": 4, "bank": "demo", "mode": "router"})
    assert parsed(option_values(shown)).bank == "demo"


@pytest.mark.parametrize("said", [None, 7, [], {"values": 3}, {"name": {}, "values": {"x": 1}}])
def test_a_browser_that_says_nonsense_gets_the_usual_options(said):
    name, values = read_options(said)
    assert name == ""
    assert parsed(values) == parsed({})


@pytest.mark.parametrize("shown", [{"steps": "x"}, {"steps": {}}, {"rank": "4x"}, {"mode": 3}])
def test_a_value_of_another_kind_is_refused_by_the_config(shown):
    with pytest.raises(ConfigError, match=f"test: {next(iter(shown))}: "):
        parsed(option_values(shown))


def test_presets_set_the_same_options_and_are_sound():
    for preset in PRESETS:
        assert set(preset.options) == set(SET)
        parsed(dict(preset.options))
    steps = [preset.options["steps"] for preset in PRESETS]
    assert steps == sorted(steps)


# Texts


@pytest.fixture
def places(tmp_path):
    """Uploads, an operator's folder with two files, and a secret beside it."""
    for folder in ("uploads/1f", "data/sub", "work"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "uploads" / "1f" / "up.txt").write_text("one\ntwo")
    (tmp_path / "data" / "a.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "data" / "sub" / "b.csv").write_text("text,x\na,b\n")
    (tmp_path / "data" / "notes.md").write_text("not data")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "data" / "link.txt").symlink_to(tmp_path / "secret.txt")
    return Places(tmp_path / "uploads", tmp_path / "data")


def read(rows, places):
    return read_texts(rows, places, places.uploads.parent / "work")


def test_the_example_is_two_experts_with_texts(places):
    texts = read(list(EXAMPLE), places)
    assert [skill["name"] for skill in texts.skills] == ["sql", "french"]
    assert all(len(s["train"][0].read_text().splitlines()) == 16 for s in texts.skills)
    assert texts.is_passing


def test_only_data_files_of_the_operators_folder_are_offered(places):
    assert places.files() == ["a.jsonl", "sub/b.csv"]
    assert Places(places.uploads).files() == []


def test_texts_come_from_a_paste_an_upload_or_the_folder(places):
    upload = {"path": str(places.uploads / "1f" / "up.txt"), "name": "up.txt"}
    texts = read(
        [
            {"name": "p", "kind": "paste", "text": '{"prompt": "a", "response": "b"}'},
            {"name": "u", "kind": "file", "file": upload, "description": " Two "},
            {"name": "f", "kind": "folder", "places": ["sub/b.csv"], "held_out": ["a.jsonl"]},
        ],
        places,
    )
    pasted, uploaded, chosen = texts.skills
    assert pasted["train"][0].suffix == ".jsonl"
    assert (uploaded["train"][0].name, uploaded["description"]) == ("up.txt", "Two")
    assert [file.name for file in (*chosen["train"], *chosen["held_out"])] == ["b.csv", "a.jsonl"]
    assert not read([{"name": "f", "kind": "folder", "places": ["a.jsonl"]}], places).is_passing
    told = texts.in_words(f"{pasted['train'][0]}, line 1: no; {chosen['train'][0]}: no")
    assert told == "The pasted text of 'p', line 1: no; sub/b.csv: no"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt", "/etc/passwd", "link.txt", "sub/../../secret.txt", "notes.md", "sub", "",
        "a.jsonl\0", "~/x.txt", "file:///etc/passwd", "http://169.254.169.254/x.txt", None, 7, {},
    ],
)  # fmt: skip
def test_no_other_file_is_read(places, name):
    for row in (
        {"name": "x", "kind": "folder", "places": [name]},
        {"name": "x", "kind": "folder", "places": ["a.jsonl"], "held_out": [name]},
        {"name": "x", "kind": "file", "file": {"path": name}},
        {"name": "x", "kind": "file", "file": {"path": str(places.uploads / str(name))}},
    ):
        with pytest.raises(DataError, match="Expert 'x'"):
            read([row], places)


def test_without_a_folder_of_the_operator_none_is_read(places):
    with pytest.raises(DataError, match="no data file in the operator's folder"):
        read([{"name": "x", "kind": "folder", "places": ["a.jsonl"]}], Places(places.uploads))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (None, "There is no expert yet"),
        ("nonsense", "There is no expert yet"),
        ([{}, {"text": ""}], "There is no expert yet"),
        ([{}, {"text": "a\nb"}], "Expert 2 has no name"),
        ([{"name": "a b", "text": "a"}], "Expert 1: 'a b' is no name"),
        ([{"name": "<img src=x>", "text": "a"}], "is no name"),
        ([{"name": "../x", "text": "a"}], "is no name"),
        ([{"name": "a"}], "Expert 'a' has no texts; paste some"),
        ([{"name": "a", "kind": "file"}], "Expert 'a' has no texts; upload"),
        ([{"name": "a", "kind": "folder", "places": {}}], "Expert 'a' has no texts; choose"),
        ([{"name": f"e{n}", "text": "a"} for n in range(MOST_EXPERTS + 1)], "at most 12"),
    ],
)
def test_what_is_missing_is_one_sentence(places, rows, sentence):
    with pytest.raises(DataError, match=sentence):
        read(rows, places)


# The config, as a file and back


@pytest.fixture
def texts(places):
    return read(list(EXAMPLE), places)


def config_of(texts, places, name="mine", known=None, **values):
    return form_config(name, texts, values, places=places, known=known or Known())


def test_a_bank_has_a_sound_name_and_experts_names_of_their_own(places, texts):
    assert config_of(texts, places, " mine ").name == "mine"
    for name in ("", "a/b", "-", "x" * 81):
        with pytest.raises(ConfigError, match="The bank's name"):
            config_of(texts, places, name)
    twice = GivenTexts((texts.skills[0], texts.skills[0]))
    with pytest.raises(ConfigError, match="two skills are named 'sql'"):
        config_of(twice, places)
    with pytest.raises(
        ConfigError, match=r"The form: steps: .*greater than or equal to 1, got '0'"
    ):
        config_of(texts, places, steps=0)


def test_only_known_bases_and_banks_can_be_named(places, texts, tmp_path, monkeypatch):
    (tmp_path / "data" / "base").mkdir()
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert config_of(texts, places).base == EMBEDDED_BASE
    assert config_of(texts, places, base="org/model-1").base == "org/model-1"
    for inside in ("base", str(tmp_path / "data" / "base")):
        assert config_of(texts, places, base=inside).base == str(tmp_path / "data" / "base")
    for outside in (str(tmp_path / "model"), "model", "../model", "data/sub", "/", "~"):
        with pytest.raises(ConfigError, match=r"base: .* is neither"):
            config_of(texts, places, base=outside)
    assert config_of(
        texts, places, base=str(tmp_path / "model"), known=Known([str(tmp_path / "model")])
    )
    assert config_of(texts, places, bank="demo", known=Known(banks=["demo"])).bank == "demo"
    for bank in ("demo", str(tmp_path / "model")):
        with pytest.raises(ConfigError, match="bank: there is no bank"):
            config_of(texts, places, bank=bank)


def test_the_file_with_its_texts_trains_the_same(places, texts, tmp_path):
    config = config_of(texts, places, steps=7, router={"top_k": 1})
    archive = write_archive(config, tmp_path)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "out")
    read_back = TrainingConfig.read(tmp_path / "out" / command(config).split()[-1])
    same = {"skills", "out"}
    assert read_back.model_dump(exclude=same) == config.model_dump(exclude=same)
    for before, after in zip(config.skills, read_back.skills, strict=True):
        assert after.train[0].read_bytes() == before.train[0].read_bytes()
        assert after.description == before.description
    assert "learning_rate" not in config_text(config), "defaults are left out"
    assert "learning_rate" in config_text(config.model_copy(update={"learning_rate": 0.5}))


def test_a_saved_dataset_of_the_operators_folder_is_trained_on_and_packed(places, tmp_path):
    dataset = Dataset.from_dict({"text": ["one", "two", "three"]})
    DatasetDict({"train": dataset, "test": dataset}).save_to_disk(tmp_path / "data" / "saved")
    assert places.files() == ["a.jsonl", "saved/test", "saved/train", "sub/b.csv"]
    row = {"name": "a", "kind": "folder", "places": ["saved/train"], "held_out": ["saved/test"]}
    config = config_of(read([row], places), places)
    with zipfile.ZipFile(write_archive(config, tmp_path)) as opened:
        opened.extractall(tmp_path / "out")
    [skill] = TrainingConfig.read(tmp_path / "out" / "mine.yaml").skills
    rows = [values for part in (*skill.train, *skill.held_out) for _, values in read_rows(part)]
    assert rows == [{"text": text} for text in ("one", "two", "three")] * 2
    stated = json.dumps(config.model_dump(mode="json"))
    [read_back] = load(stated, places)[1]
    assert (read_back["places"], read_back["held_out"]) == (["saved/train"], ["saved/test"])


def test_a_dataset_of_the_hub_is_not_taken_along_from_a_config(places):
    skills = [{"name": "a", "train": [{"dataset": "user/name"}, "hf:./data"]}]
    [row] = load(json.dumps({"name": "x", "out": "x", "skills": skills}), places)[1]
    assert (row["kind"], row["places"]) == ("paste", [])


def test_two_files_of_one_name_do_not_become_one(places, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / "data" / folder).mkdir()
        (tmp_path / "data" / folder / "x.txt").write_text(folder)
    row = {"name": "a", "kind": "folder", "places": ["one/x.txt"], "held_out": ["two/x.txt"]}
    config = config_of(read([row], places), places)
    with zipfile.ZipFile(write_archive(config, tmp_path)) as opened:
        opened.extractall(tmp_path / "out")
    [skill] = TrainingConfig.read(tmp_path / "out" / "mine.yaml").skills
    assert (skill.train[0].read_text(), skill.held_out[0].read_text()) == ("one", "two")


def load(text, places):
    return read_config_text(text, places, source="bank.yaml")


def test_a_config_brings_texts_along_only_from_the_operators_folder(places, tmp_path):
    config = {
        "name": "mine", "out": "x", "steps": 9,
        "skills": [
            {"name": "a", "train": ["a.jsonl"], "tags": ["code"]},
            {"name": "b", "train": [str(tmp_path / "data" / "sub" / "b.csv")], "description": "B"},
            {"name": "c", "train": ["../secret.txt"]},
            {"name": "d", "train": ["a.jsonl", "gone.txt"]},
        ],
    }  # fmt: skip
    values, rows = load(json.dumps(config), places)
    assert (values["name"], values["steps"]) == ("mine", 9)
    assert [(row["name"], row["places"]) for row in rows] == [
        ("a", ["a.jsonl"]), ("b", ["sub/b.csv"]), ("c", []), ("d", []),
    ]  # fmt: skip
    assert (rows[0]["tags"], rows[1]["description"]) == (["code"], "B")
    _, without = load(json.dumps(config), Places(places.uploads))
    assert not any(row["places"] for row in without)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("name: x\nstep: 3", "bank.yaml: .*unknown option 'step', did you mean 'steps'"),
        ("a: [", "bank.yaml, line 1: this is not valid YAML"),
        ("- 1", "bank.yaml: expected options"),
        ("a: &x 1\nb: *x", "bank.yaml: aliases"),
        ("[" * 5000, "bank.yaml: nested too deeply"),
        ("x: " + "y" * 200_001, "bank.yaml: too large"),
        ("\ud800: 1", "bank.yaml"),
        ("", "bank.yaml: expected options"),
    ],
)
def test_a_text_that_is_no_config_is_one_sentence(places, content, sentence):
    with pytest.raises(ConfigError, match=sentence) as refused:
        load(content, places)
    assert "/" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_large_texts_are_not_packed(places, texts, tmp_path):
    big = Path(texts.skills[0]["train"][0])
    with big.open("wb") as file:
        file.truncate(70_000_000)
    with pytest.raises(ConfigError, match="a page packs at most 64"):
        write_archive(config_of(texts, places), tmp_path)
