"""Training on a tiny model: it learns, it separates, it repeats, and it leaves the base alone."""

import json

import pytest
import torch
from tiny_models import make_tiny_base, make_tiny_tokenizer

from lmoe_studio.base_models import BaseModel, identify
from lmoe_studio.errors import ConfigError, DataError
from lmoe_studio.experts.files import load_bank
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.data import MixedSkills, SkillData, read_texts
from lmoe_studio.training.events import EvalDone, Finished, StepDone
from lmoe_studio.training.run import run_training

LETTERS = {"vowels": "aeiou ", "digits": "0123456789 "}


@pytest.fixture
def base():
    model = make_tiny_base()
    return BaseModel(model, make_tiny_tokenizer(), identify(model, "tiny"))


@pytest.fixture
def config(tmp_path):
    generator = torch.Generator().manual_seed(0)
    skills = []
    for name, letters in LETTERS.items():
        for part, count in (("train", 40), ("heldout", 6)):
            lines = []
            for _ in range(count):
                picks = torch.randint(len(letters), (60,), generator=generator)
                lines.append(json.dumps({"text": "".join(letters[i] for i in picks)}))
            (tmp_path / f"{name}-{part}.jsonl").write_text("\n".join(lines))
        skills.append(
            {"name": name, "train": [f"{name}-train.jsonl"], "held_out": [f"{name}-heldout.jsonl"]}
        )
    values = {
        "name": "tiny", "base": "tiny", "out": "bank", "skills": skills, "rank": 2, "steps": 30,
        "sequence_length": 32, "learning_rate": 0.01, "router_learning_rate": 0.03,
        "device": "cpu", "held_out_sequences": 6,
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    return TrainingConfig.read(tmp_path / "config.yaml")


def test_a_bank_is_trained_and_beats_the_base_on_every_skill(base, config, ids):
    before = base.model(ids).logits
    events = []
    bank = run_training(config, events.append, base=base)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [event.step for event in steps] == list(range(1, 31))
    evaluation = next(event for event in events if isinstance(event, EvalDone))
    assert all(evaluation.bank[name] < evaluation.base[name] for name in LETTERS)
    assert events[-1] == Finished(config.out)
    assert torch.equal(base.model(ids).logits, before)
    report = load_bank(config.out).training
    assert report is not None
    assert report["held_out"]["bank"] == evaluation.bank
    assert max(report["specialisation"]["information"]) > 0.5
    assert report["config"]["skills"][0]["train"] == [
        f"{config.out.parent.name}/vowels-train.jsonl"
    ]
    assert "vowels" in (config.out / "README.md").read_text()
    assert bank.expert_names == ("vowels", "digits")


def test_the_same_seed_gives_the_same_bank(base, config):
    banks = [run_training(config.model_copy(update={"steps": 5}), base=base) for _ in range(2)]
    other = run_training(config.model_copy(update={"steps": 5, "seed": 1}), base=base)
    tensors = [
        [t for e in bank.experts for f in e.adapter.factors.values() for t in (f.a, f.b)]
        for bank in (*banks, other)
    ]
    assert all(torch.equal(a, b) for a, b in zip(tensors[0], tensors[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(tensors[0], tensors[2], strict=True))


@pytest.mark.parametrize("scope", ["shared", "module"])
def test_every_scope_trains_with_checkpointing_and_accumulation(base, config, scope):
    options = {"steps": 2, "gradient_checkpointing": True, "gradient_accumulation": 2}
    options["router"] = config.router.model_copy(update={"scope": scope})
    bank = run_training(config.model_copy(update=options), base=base)
    assert any(tensor.abs().sum() > 0 for tensor in bank.router_state.values())


def test_skills_take_turns_and_every_sequence_is_seen_once_a_round():
    skills = [
        SkillData("a", [[i] for i in range(5)], []),
        SkillData("b", [[i] for i in range(3)], []),
    ]
    data = MixedSkills(skills, 30, seed=3)
    rows = [data[i] for i in range(30)]
    assert all({rows[i]["skill"], rows[i + 1]["skill"]} == {0, 1} for i in range(0, 30, 2))
    first = [row["ids"][0] for row in rows if row["skill"] == 0]
    assert sorted(first[:5]) == sorted(first[5:10]) == list(range(5))
    assert [data[i] for i in range(30)] == rows  # no hidden state


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "ok"}\n{"text": ', "line 2: no JSON"),
        (b'{"prompt": "x"}', "expected a string named 'text', got prompt"),
        (b"[1, 2]", "expected a string named 'text'"),
        (b'{"text": 3}', "expected a string named 'text'"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'{"text": "' + b"x" * 1_000_001 + b'"}', "line 1: longer than 1,000,000"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, message):
    (tmp_path / "data.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_texts(tmp_path / "data.jsonl"))


def test_empty_and_missing_files_are_named(base, config):
    skill = config.skills[0]
    skill.train[0].write_text("\n \n")
    with pytest.raises(DataError, match="Skill 'vowels' has no text"):
        run_training(config, base=base)
    skill.train[0].unlink()
    with pytest.raises(DataError, match=r"vowels-train.jsonl cannot be read"):
        run_training(config, base=base)


def test_a_byte_order_mark_and_lone_surrogates_are_no_harm(tmp_path):
    (tmp_path / "data.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a\\ud800b"}\n\n')
    assert list(read_texts(tmp_path / "data.jsonl")) == ["a?b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepps": 3}, "unknown option 'stepps', did you mean 'steps'"),
        ({"rank": 0}, "rank: "),
        ({"skills": []}, "skills: "),
        ({"router": {"scop": "layer"}}, "unknown option 'router.scop', did you mean 'scope'"),
        ({"router": {"kind": "uniform"}}, "nothing to learn"),
        ({"target_modules": ["qq_proj"]}, "no linear layer named qq_proj"),
    ],
)
def test_a_bad_config_is_refused_in_one_sentence(base, config, change, message):
    values = config.model_dump(mode="json") | change
    with pytest.raises(ConfigError, match=message):
        run_training(TrainingConfig.parse(values, source="config.yaml"), base=base)
