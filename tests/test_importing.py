"""Adapters of all kinds become a bank, or are refused each with its own reason."""

import json

import pytest
import torch
from tiny_models import make_bank, make_tiny_base, make_tiny_tokenizer

from lmoe_studio.base_models import BaseModel, identify
from lmoe_studio.errors import AdapterError, ConfigError, StorageError
from lmoe_studio.experts.adapter import write_adapter
from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors
from lmoe_studio.importing import import_adapters, import_router


@pytest.fixture
def base():
    model = make_tiny_base()
    return BaseModel(model, make_tiny_tokenizer(), identify(model, "tiny"))


@pytest.fixture
def adapters(tmp_path):
    """Two that fit, one of another architecture, one outside the blocks, one that is not there."""
    experts = save_bank(make_bank(make_tiny_base()), tmp_path / "bank") / "experts"
    folders = {name: experts / name for name in ("sql", "math")}
    config = json.loads((experts / "prose" / "adapter_config.json").read_text())
    (experts / "prose" / "adapter_config.json").write_text(json.dumps(config | {"r": 7}))
    head = LoraAdapter({"lm_head": LoraFactors(torch.ones(2, 32), torch.ones(259, 2), 1.0)}, "tiny")
    write_adapter(head, tmp_path / "head", base="tiny")
    return folders | {
        "odd": experts / "prose", "head": tmp_path / "head", "gone": tmp_path / "gone",
    }  # fmt: skip


def test_those_that_fit_are_taken_and_the_others_each_have_their_reason(base, adapters, tmp_path):
    said = []
    made = import_adapters(
        adapters, tmp_path / "mine", base="tiny", beside=base, leave_out_refused=True,
        on_progress=said.append,
    )  # fmt: skip
    assert made is not None
    assert made.bank is not None
    assert made.bank.expert_names == ("sql", "math")
    assert list(made.refused) == ["odd", "head", "gone"]
    assert "shape" in made.refused["odd"]
    assert "lm_head" in made.refused["head"]
    assert "cannot be opened" in made.refused["gone"]
    assert [f"Reading {name}" for name in adapters] == [s for s in said if s.startswith("Reading")]
    kept = load_bank(tmp_path / "mine")
    assert (kept.name, kept.router.kind, kept.expert_names) == ("mine", "arrow", ("sql", "math"))


def test_where_none_may_be_left_out_the_first_refused_is_named(base, adapters, tmp_path):
    with pytest.raises(AdapterError, match=r"^Expert 'odd' \(.*prose\): .*shape"):
        import_adapters(adapters, tmp_path / "mine", base="tiny", beside=base)
    assert not (tmp_path / "mine").exists()


def test_where_none_is_taken_nothing_is_written(base, adapters, tmp_path):
    odd = {"odd": adapters["odd"]}
    made = import_adapters(odd, tmp_path / "mine", base="tiny", beside=base, leave_out_refused=True)
    assert made is not None
    assert (made.bank, list(made.refused)) == (None, ["odd"])
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("after", range(8))
def test_stopped_before_any_step_it_writes_nothing(base, adapters, tmp_path, after):
    steps = []
    folders = {name: adapters[name] for name in ("sql", "math")}
    made = import_adapters(
        folders, tmp_path / "mine", base="tiny", beside=base, on_progress=steps.append,
        should_stop=lambda: len(steps) >= after,
    )  # fmt: skip
    assert (made is None) == (after < 7)
    assert (tmp_path / "mine").exists() == (after == 7)
    assert not list(tmp_path.glob(".*"))


def test_a_place_that_is_taken_is_left_alone(base, adapters, tmp_path):
    with pytest.raises(StorageError, match="there already"):
        import_adapters(adapters, tmp_path, base="tiny", beside=base)


def test_each_kind_of_router_gets_its_scope():
    assert (import_router("uniform").scope, import_router("arrow").scope) == ("layer", "module")
    with pytest.raises(ConfigError):
        import_router("arrow", top_k=0)


def test_the_name_of_another_base_is_a_note(base, adapters, tmp_path):
    path = adapters["sql"] / "adapter_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "other/tiny"})
    )
    folders = {name: adapters[name] for name in ("sql", "math")}
    made = import_adapters(folders, tmp_path / "mine", base="tiny", beside=base)
    assert made is not None
    assert made.bank is not None
    assert len(made.notes) == 1
    assert "sql: made for 'other/tiny'" in made.notes[0]


def test_a_layer_outside_the_blocks_is_left_out_as_asked(base, adapters, tmp_path):
    sound = make_bank(make_tiny_base()).experts[0].adapter
    head = {"lm_head": LoraFactors(torch.ones(2, 32), torch.ones(259, 2), 1.0)}
    write_adapter(LoraAdapter(sound.factors | head), tmp_path / "both", base="tiny")
    folders = {"both": tmp_path / "both"}

    with pytest.raises(
        AdapterError, match=r"^Expert 'both' .*'lm_head' lies outside.*leave-out lm_head"
    ):
        import_adapters(folders, tmp_path / "mine", base="tiny", beside=base)
    made = import_adapters(
        folders, tmp_path / "mine", base="tiny", beside=base, leave_out=["lm_head"]
    )

    assert made is not None
    assert made.bank is not None
    assert set(made.bank.modules) == set(sound.factors)
    assert made.notes == ("both: left out as asked: lm_head (2 tensors)",)
