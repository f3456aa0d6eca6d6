"""`lmoe adapt` and `lmoe distil`: a new bank beside the old one, and a sentence for each mistake."""

import json

import pytest
import torch
from tiny_models import make_bank, make_tiny_base, make_tiny_tokenizer

from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.routing.settings import RouterSettings


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base model, a bank that learns and one that does not, and texts."""
    place = tmp_path_factory.mktemp("adapt")
    base = make_tiny_base()
    base.save_pretrained(place / "base")
    make_tiny_tokenizer().save_pretrained(place / "base")
    for name, router in (("bank", RouterSettings()), ("even", RouterSettings(kind="uniform"))):
        save_bank(make_bank(base, router=router, base_id=str(place / "base")), place / name)
    (place / "texts.txt").write_text("SELECT name FROM users\nil fait beau\n")
    (place / "short.txt").write_text("a\n")
    return place


def test_it_writes_a_new_bank_and_leaves_the_old_one(lmoe, place, tmp_path):
    old = {path: path.read_bytes() for path in (place / "bank").rglob("*") if path.is_file()}
    out = tmp_path / "adapted"
    code, stdout, err = lmoe(
        "adapt", place / "bank", "--data", place / "texts.txt", "--out", out, "--objective",
        "language", "--steps", 5, "--learning-rate", 0.01, "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    assert "before" in stdout
    assert "entropy" in stdout
    assert f"Wrote {out}:" in " ".join(err.split())
    assert all(path.read_bytes() == content for path, content in old.items())
    bank, before = load_bank(out), load_bank(place / "bank")
    assert bank.name == "adapted"
    report = json.loads((out / "training.json").read_text())["adaptation"]
    assert report["options"] == {
        "objective": "language", "steps": 5, "learning_rate": 0.01, "held_out": 0.5
    }  # fmt: skip
    moved = any(
        not torch.equal(tensor, before.router_state[name])
        for name, tensor in bank.router_state.items()
    )
    assert moved == bool(report["step"])
    assert report["held_out"]["after"]["loss"] <= report["held_out"]["before"]["loss"]


@pytest.mark.parametrize(
    ("bank", "arguments", "message"),
    [
        ("bank", ["--data", "texts.txt", "--objective", "loss"], "objective"),
        ("bank", ["--data", "texts.txt", "--steps", "0"], "steps"),
        ("bank", ["--data", "texts.txt", "--held-out", "1"], "held_out"),
        ("bank", ["--data", "missing.txt"], "missing.txt"),
        ("bank", ["--data", "short.txt"], "No text has three tokens"),
        ("even", ["--data", "texts.txt"], "has nothing to learn"),
    ],
)
def test_a_mistake_is_a_sentence_and_nothing_is_written(
    lmoe, place, tmp_path, bank, arguments, message
):
    files = [place / one if one.endswith(".txt") else one for one in arguments]
    code, _, err = lmoe("adapt", place / bank, *files, "--out", tmp_path / "out", "--device", "cpu")
    assert code == 1
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_written_over(lmoe, place):
    code, _, err = lmoe(
        "adapt", place / "bank", "--data", place / "texts.txt", "--out", place / "bank"
    )
    assert code == 1
    assert "is there already" in " ".join(err.split())


def test_a_router_is_distilled_into_a_new_bank(lmoe, place, tmp_path):
    line = [
        "distil",
        place / "bank",
        "--data",
        place / "texts.txt",
        "--steps",
        3,
        "--device",
        "cpu",
    ]
    code, _, err = lmoe(*line, "--out", tmp_path / "ids")
    assert code == 0, err
    assert "the same first choice on" in " ".join(err.split())
    assert load_bank(tmp_path / "ids").router.kind == "pre"
    code, _, err = lmoe(*line[:3], place / "short.txt", "--out", tmp_path / "no", "--device", "cpu")
    assert code == 1
    assert "two are needed" in " ".join(err.split())
    assert not (tmp_path / "no").exists()
