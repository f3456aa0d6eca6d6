"""Banks on the Hugging Face hub: cards, ids, what is said where it cannot be reached."""

import contextlib
import json
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from tiny_models import make_bank, make_tiny_base

import lmoe_studio as lmoe
from lmoe_studio.cli import main
from lmoe_studio.errors import BankError, HubError
from lmoe_studio.experts import hub_cache
from lmoe_studio.experts.card import front_matter, plain_card
from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.hub import repository


@pytest.fixture
def bank():
    return make_bank(make_tiny_base())


def head(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_a_card_begins_with_what_the_hub_reads(bank, tmp_path):
    assert head(plain_card(bank))["library_name"] == "lmoe-studio"
    assert "base_model" not in head(front_matter(bank))
    demo = head(front_matter(load_bank("demo")))
    assert demo["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert demo["base_model_relation"] == "adapter"
    lmoe.attach(make_tiny_base(), bank).save_pretrained(tmp_path)
    assert head((tmp_path / "README.md").read_text()) == head(plain_card(bank))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that holds folders, at the seam where files go over the network."""
    monkeypatch.setenv("LMOE_CACHE", str(tmp_path / "cache"))
    held = {}

    def download(repo_id, *, revision, local_dir, allow_patterns):
        if repo_id not in held:
            raise LocalEntryNotFoundError("no network\nand more")
        for name, content in held[repo_id].items():
            path = local_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    class Api:
        endpoint = "https://hub"

        def __init__(self, token):
            pass

        def create_repo(self, repo_id, **_):
            if repo_id.startswith("other/"):
                raise HfHubHTTPError(
                    "403 Forbidden", response=SimpleNamespace(headers={}, request=None)
                )

        def upload_folder(self, *, repo_id, folder_path, **_):
            root = repository.Path(folder_path)
            files = {
                p.relative_to(root).as_posix(): p.read_bytes()
                for p in root.rglob("*")
                if p.is_file()
            }
            held[repo_id] = files
            return SimpleNamespace(pr_url=None)

    monkeypatch.setattr(hub_cache, "snapshot_download", download)
    monkeypatch.setattr(repository, "HfApi", Api)
    return held


def test_what_is_pushed_is_loaded_by_its_id(hub, bank, tmp_path):
    folder = save_bank(bank, tmp_path / "bank", card="# mine\n")
    assert lmoe.push_bank(folder, "me/bank") == "https://hub/me/bank"
    assert hub["me/bank"]["README.md"] == b"# mine\n"
    again = load_bank("me/bank")
    assert again.expert_names == bank.expert_names
    model = lmoe.attach(make_tiny_base(), bank)
    model.push_to_hub("me/other")
    assert json.loads(hub["me/other"]["bank.json"])["name"] == bank.name
    lmoe.attach(make_tiny_base(), "me/other")


def test_what_was_fetched_once_is_there_without_a_network(hub, bank, tmp_path):
    lmoe.push_bank(bank, "me/bank")
    load_bank("me/bank", revision="v1")
    hub.clear()
    assert load_bank("me/bank", revision="v1").expert_names == bank.expert_names
    with pytest.raises(
        HubError, match=r"no folder 'me/bank' at 'v2'.*could not be reached.*no network"
    ):
        load_bank("me/bank", revision="v2")


def test_a_stranger_s_files_are_looked_at_as_ever(hub, bank):
    lmoe.push_bank(bank, "me/bank")
    hub["me/bank"]["router.safetensors"] += b"x"
    with pytest.raises(BankError, match=r"router\.safetensors"):
        load_bank("me/bank")


@pytest.mark.parametrize("name", ["a/b/c", "../x", "a b/c", "", "x" * 200])
def test_what_can_be_no_id_is_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LMOE_CACHE", str(tmp_path))
    with pytest.raises(HubError, match="is no id of the Hugging Face hub; write user/name"):
        hub_cache.fetched(name)


def test_a_name_of_one_word_and_a_path_are_no_ids(hub):
    for name in ("nothing", "../x/y", "a/b/c", "/x/y"):
        with pytest.raises(BankError, match="There is no bank"):
            load_bank(name)


def test_a_hub_that_is_not_there_is_one_sentence(bank, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(HubError, match=r"could not be put on the hub as 'me/bank'"):
        lmoe.push_bank(bank, "me/bank", token="hf_x")


def test_what_the_hub_does_not_take_is_one_sentence(hub, bank):
    with pytest.raises(
        HubError, match="could not be put on the hub as 'other/bank': 403 Forbidden"
    ):
        lmoe.push_bank(bank, "other/bank")


def test_pushing_and_pulling_from_the_command_line(hub, bank, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LMOE_HOME", str(tmp_path / "home"))
    save_bank(bank, tmp_path / "bank")
    for words in (["push", str(tmp_path / "bank"), "me/mine"], ["pull", "me/mine"]):
        monkeypatch.setattr("sys.argv", ["lmoe", *words])
        with contextlib.suppress(SystemExit):
            main()
    assert "3 experts for tiny" in capsys.readouterr().err
    assert load_bank("mine").expert_names == bank.expert_names
    monkeypatch.setattr("sys.argv", ["lmoe", "pull", "me/mine"])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "is there already" in capsys.readouterr().err
