"""A bank folder: exact, whole or not at all, and readable by plain PEFT."""

import json

import pytest
import torch
from peft import PeftModel
from tiny_models import ROUTERS, make_bank, make_tiny_base
from tolerances import ONE_PASS

from lmoe_studio.errors import BankError, StorageError
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.files import load_bank, read_card, save_bank
from lmoe_studio.experts.inspect import describe_bank
from lmoe_studio.experts.places import find_bank, own_banks, shipped_banks
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.studio import available_banks


@pytest.fixture
def folder(tmp_path):
    return save_bank(make_bank(make_tiny_base()), tmp_path / "bank", card="# a card\n")


@torch.no_grad()
def logits(bank, ids, plan=None):
    return MixtureModel(make_tiny_base(), bank).eval()(ids, plan=plan).logits


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_save_and_load_is_exact(tmp_path, ids, router):
    bank = make_bank(make_tiny_base(), router=router, ranks=(2, 3, 4), missing=[(1, "k_proj")])
    again = load_bank(save_bank(bank, tmp_path / "bank"))
    assert again.router == bank.router
    assert again.expert_names == bank.expert_names
    assert torch.equal(logits(again, ids), logits(bank, ids))


def test_plain_peft_loads_each_expert_and_agrees_with_solo(folder, ids):
    bank = load_bank(folder)
    for name in bank.expert_names:
        peft = PeftModel.from_pretrained(make_tiny_base(), str(folder / "experts" / name)).eval()
        solo = logits(bank, ids, RoutingPlan([Override.solo(name)]))
        with torch.no_grad():
            torch.testing.assert_close(peft(ids).logits, solo, **ONE_PASS)


def test_adapters_written_by_peft_become_a_bank_that_routes_at_once(folder, ids):
    base = make_tiny_base()
    identity = make_bank(base).base
    paths = {"one": folder / "experts" / "sql", "two": folder / "experts" / "prose"}
    bank = ExpertBank.from_adapters(paths, base=identity)
    assert bank.router.kind == "arrow"
    model = MixtureModel(base, bank).eval()
    with torch.no_grad():
        routing = model(ids, record=True).routing
    assert routing.weights.std() > 0.01


def test_the_card_may_be_edited_and_anything_else_may_not(folder):
    (folder / "README.md").write_text("# another card\n")
    assert load_bank(folder).name == "random"
    assert read_card(folder) == "# another card\n"
    changed = folder / "experts" / "math" / "adapter_model.safetensors"
    data = bytearray(changed.read_bytes())
    data[-1] ^= 1
    changed.write_bytes(data)
    with pytest.raises(BankError, match=r"math/adapter_model.safetensors has changed"):
        load_bank(folder)


@pytest.mark.parametrize("name", ["bank.json", "router.safetensors", "manifest.json",
                                  "experts/sql/adapter_config.json"])  # fmt: skip
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(BankError, match=name.rsplit("/", 1)[-1]):
        load_bank(folder)


def test_a_manifest_cannot_name_files_outside_the_folder(folder):
    (folder / "manifest.json").write_text(json.dumps({"../secret": "0"}))
    with pytest.raises(BankError, match="outside the folder"):
        load_bank(folder)


def test_an_unknown_bank_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(BankError, match="There is no bank 'demmo'"):
        find_bank("demmo")
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(BankError, match=r"no bank: it has no bank\.json"):
        find_bank(tmp_path / "empty")
    for name in shipped_banks():
        assert find_bank(name).is_dir()


def test_an_own_bank_is_found_by_name_and_never_in_place_of_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.setenv("LMOE_HOME", str(tmp_path))
    bank = make_bank(make_tiny_base())
    mine = save_bank(bank, tmp_path / "banks" / "mine")
    save_bank(bank, tmp_path / "banks" / "demo")
    (tmp_path / "banks" / "no-bank").mkdir()
    assert own_banks() == {"mine": mine}
    assert find_bank("mine") == mine
    assert load_bank("mine").expert_names == bank.expert_names
    assert available_banks() == [*shipped_banks(), "mine"]
    assert find_bank("demo") == shipped_banks()["demo"]
    with pytest.raises(BankError, match=r"[Tt]here is demo, mine\."):
        find_bank("nine-banks")


def test_a_folder_that_is_there_is_not_written_over(folder):
    bank = load_bank(folder)
    with pytest.raises(StorageError, match="is there already"):
        save_bank(bank, folder)
    save_bank(bank, folder, overwrite=True)
    assert load_bank(folder).expert_names == bank.expert_names


def test_a_failed_save_leaves_the_old_bank_and_no_litter(folder, monkeypatch):
    bank = load_bank(folder)

    def no_room(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lmoe_studio.experts.files.save_file", no_room)
    with pytest.raises(StorageError, match="No space left on device"):
        save_bank(bank, folder, overwrite=True)
    assert load_bank(folder).expert_names == bank.expert_names
    assert [path.name for path in folder.parent.iterdir()] == ["bank"]


def test_experts_have_names_of_their_own(folder):
    bank = load_bank(folder)
    with pytest.raises(BankError, match="two experts named sql"):
        ExpertBank("b", bank.base, (bank.experts[0], bank.experts[0]))
    with pytest.raises(BankError, match="no expert 'matth'; did you mean 'math'"):
        bank.expert_index("matth")


def test_a_description_says_what_is_in_a_bank():
    bank = make_bank(make_tiny_base(), ranks=(2, 3))
    described = describe_bank(bank)
    assert [item["ranks"] for item in described["experts"]] == [[2], [3]]
    assert described["parameters"] == bank.num_parameters
    deltas = [f.scale * f.b @ f.a for f in bank.experts[0].adapter.factors.values()]
    norm = sum(float(delta.square().sum()) for delta in deltas) ** 0.5
    assert described["experts"][0]["update_norm"] == pytest.approx(norm, rel=1e-5)
