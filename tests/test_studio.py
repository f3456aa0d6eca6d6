"""Studios that share a base model, and what a training would see."""

import pytest
import torch
from tiny_models import make_bank, make_tiny_base, make_tiny_tokenizer

from lmoe_studio.errors import BaseModelError
from lmoe_studio.experts.files import save_bank
from lmoe_studio.studio import Studio
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.preview import preview_training


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    """Two banks over one base model, all three as folders."""
    place = tmp_path_factory.mktemp("banks")
    model = make_tiny_base()
    model.save_pretrained(place / "base")
    make_tiny_tokenizer().save_pretrained(place / "base")
    for name, seed in (("one", 1), ("other", 2)):
        bank = make_bank(model, seed=seed, base_id=str(place / "base"))
        save_bank(bank, place / name)
    return place


def tensors_of(studio):
    return {p.data_ptr() for p in studio.base.model.parameters()}


def weights_of(studio):
    return studio.trace("select a").routing_weights


def test_a_studio_leaves_its_base_model_as_it_came():
    model = make_tiny_base()
    ids = torch.arange(3, 12)[None]
    before, names = model(ids).logits, [name for name, _ in model.named_modules()]
    studio = Studio(model, make_tiny_tokenizer(), make_bank(model))
    assert not torch.equal(studio.model(ids).logits, before)
    assert torch.equal(model(ids).logits, before)
    assert [name for name, _ in model.named_modules()] == names


def test_banks_of_one_base_share_its_memory_and_nothing_else(banks):
    one = Studio.load(banks / "one", device="cpu")
    before = weights_of(one)
    other = Studio.load(banks / "other", device="cpu", beside=one)
    assert tensors_of(other) == tensors_of(one)
    shared = {p.data_ptr() for p in other.model.parameters() if not p.requires_grad}
    assert shared == tensors_of(one)
    alone = Studio.load(banks / "other", device="cpu")
    assert tensors_of(alone).isdisjoint(tensors_of(one))
    assert (weights_of(other) == weights_of(alone)).all()
    assert (weights_of(one) == before).all()
    assert not (weights_of(other) == before).all()


def test_another_base_dtype_or_device_is_loaded_anew(banks):
    one = Studio.load(banks / "one", device="cpu")
    for options in ({"dtype": "bfloat16"}, {"base": str(banks / "base" / ".") + "/"}):
        loaded = Studio.load(banks / "other", device="cpu", beside=one, **options)
        assert tensors_of(loaded).isdisjoint(tensors_of(one))


def test_a_preview_tells_what_is_read_and_what_is_learned(banks, tmp_path):
    (tmp_path / "pairs.jsonl").write_text(
        '{"prompt": "2+2", "response": "four é"}\n' * 2 + '{"prompt": "", "response": " "}\n'
        '{"prompt": "7", "response": "seven"}\n'
    )  # fmt: skip
    config = TrainingConfig.parse(
        {"name": "x", "out": "x", "base": str(banks / "base"), "sequence_length": 24, "skills": [
            {"name": "sums", "train": [str(tmp_path / "pairs.jsonl")], "held_out": []},
        ]}, source="test",
    )  # fmt: skip
    [skill] = preview_training(config)
    assert (skill.report.name, skill.report.held_out_texts) == ("sums", 1)
    assert skill.report.dropped["blank"] == 1
    shown = ["".join(text for text, _ in sequence) for sequence in skill.sequences]
    assert "2+2\n" in "".join(shown) or "7\n" in "".join(shown)
    for sequence in skill.sequences:
        assert not sequence[0][1]
        learned = "".join(t for t, is_learned in sequence if is_learned and t != "\ufffd")
        assert "2+2" not in learned
        assert "four é" in learned or "seven" in learned
    beside = Studio.load(banks / "one", device="cpu")
    assert preview_training(config, beside=beside.base) == [skill]


def test_a_preview_without_its_base_model_says_so(tmp_path):
    config = TrainingConfig.parse(
        {"name": "x", "out": "x", "base": str(tmp_path), "skills": [{"name": "a", "train": ["a"]}]},
        source="test",
    )
    with pytest.raises(BaseModelError, match="holds no tokenizer that can be loaded"):
        preview_training(config)
