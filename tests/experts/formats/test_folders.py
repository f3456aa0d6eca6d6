"""A folder that has the adapter inside is taken where there is no doubt, and that is said."""

import json
import re
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from tiny_models import make_bank, make_tiny_base

from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.adapter import write_adapter
from lmoe_studio.experts.formats.folders import find_adapters

ADAPTER = make_bank(make_tiny_base(), ranks=(2,), targets=("q_proj",)).experts[0].adapter


def make(place, *inside):
    for one in inside:
        write_adapter(ADAPTER, place / one, base="tiny")
    return place


def test_the_last_checkpoint_is_taken_by_its_number(tmp_path):
    make(tmp_path, "checkpoint-500", "checkpoint-1000", "checkpoint-60")
    (tmp_path / "checkpoint-2000").mkdir()  # the run was cut before it was written
    found = find_adapters("sql", tmp_path)
    assert found.places == {"sql": tmp_path / "checkpoint-1000"}
    assert len(found.notes) == 1
    assert "'checkpoint-1000' was taken, the last of 3 checkpoints" in found.notes[0]


def test_an_adapter_beside_its_checkpoints_is_taken_itself(tmp_path):
    make(tmp_path, ".", "checkpoint-500", "checkpoint-1000")
    assert find_adapters("sql", tmp_path).places == {"sql": tmp_path}
    assert find_adapters("sql", tmp_path).notes == ()


def test_a_configuration_alone_leads_on_to_the_checkpoints(tmp_path):
    """Some tools write it before they train."""
    make(tmp_path, "checkpoint-3")
    config = (tmp_path / "checkpoint-3" / "adapter_config.json").read_text()
    (tmp_path / "adapter_config.json").write_text(config)
    assert find_adapters("sql", tmp_path).places == {"sql": tmp_path / "checkpoint-3"}


def test_folders_of_folders_are_followed(tmp_path):
    make(tmp_path, "run/checkpoint-9", "run/checkpoint-10")
    found = find_adapters("sql", tmp_path)
    assert found.places == {"sql": tmp_path / "run" / "checkpoint-10"}
    assert len(found.notes) == 2


def test_several_adapters_of_one_model_are_each_to_be_named(tmp_path):
    make(tmp_path, "math", "sql")
    with pytest.raises(
        AdapterError, match=r"2 adapters \('math', 'sql'\).*--expert NAME=.*math\.$"
    ):
        find_adapters("mine", tmp_path)


def test_what_peft_writes_for_a_model_of_two_adapters_is_found(tmp_path):
    model = get_peft_model(make_tiny_base(), LoraConfig(target_modules=["q_proj"]), "sql")
    model.save_pretrained(tmp_path)
    assert find_adapters("mine", tmp_path).places == {"mine": tmp_path / "sql"}
    model.add_adapter("default", LoraConfig(target_modules=["q_proj"]))
    model.save_pretrained(tmp_path)
    found = find_adapters("mine", tmp_path)
    assert found.places == {"mine": tmp_path}
    assert "holds other adapters too, which were passed over: 'sql'" in found.notes[0]


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_file_of_an_adapter_stands_for_its_folder(file, tmp_path):
    make(tmp_path, "a")
    assert find_adapters("a", tmp_path / "a" / file).places == {"a": tmp_path / "a"}


def test_what_holds_no_adapter_is_left_to_be_refused_as_it_is(tmp_path):
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    for place in (tmp_path / "empty", tmp_path / "gone"):
        assert find_adapters("a", place).places == {"a": place}


def test_the_id_of_an_adapter_of_the_hub_says_how_to_have_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AdapterError, match=r"no folder 'me/sql'.*hf download me/sql --local-dir"):
        find_adapters("sql", Path("me/sql"))
    make(tmp_path / "me", "sql")
    assert find_adapters("sql", Path("me/sql")).places == {"sql": Path("me/sql")}


@pytest.mark.parametrize(
    ("config", "inside"), [("adapter_config.json", "."), ("xlora_config.json", "adapters")]
)
def test_the_experts_of_an_x_lora_are_taken_and_its_classifier_is_not(config, inside, tmp_path):
    make(tmp_path / inside, "0", "a b")
    fields = {"peft_type": "XLORA", "adapters": {"0": "elsewhere", "a b": "elsewhere"}}
    (tmp_path / config).write_text(json.dumps(fields))
    found = find_adapters("mix", tmp_path)
    assert found.places == {
        "mix-0": tmp_path / inside / "0", "mix-a-b": tmp_path / inside / "a b",
    }  # fmt: skip
    assert re.search("its 2 experts were taken, and its classifier was not", found.notes[0])


def test_an_x_lora_whose_experts_lie_elsewhere_says_so(tmp_path):
    fields = {"peft_type": "XLORA", "adapters": {"0": "/etc"}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(fields))
    with pytest.raises(AdapterError, match="experts lie elsewhere"):
        find_adapters("mix", tmp_path)
