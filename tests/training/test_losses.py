"""What losses are means over: the tokens that are predicted, of a whole step, as `evaluate` counts."""

import json

import pytest
import torch
import torch.nn.functional as F
from tiny_models import make_tiny_tokenizer
from training_runs import tensors_of

from lmoe_studio.base_models import BaseModel
from lmoe_studio.studio import Studio
from lmoe_studio.training.data import MixedSkills, load_skills
from lmoe_studio.training.events import StepDone
from lmoe_studio.training.run import run_training


@pytest.fixture(params=[False, True], ids=["plain", "begins"])
def reading_base(request, base):
    return BaseModel(base.model, make_tiny_tokenizer(bos=request.param), base.identity)


@torch.no_grad()
def losses_by_hand(base, ids):
    logits = base.model(torch.tensor([ids])).logits[0, :-1]
    return F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")


@pytest.mark.parametrize("length", [8, 32])
def test_a_loss_is_the_mean_over_the_tokens_that_are_predicted(reading_base, changed, length):
    config = changed(steps=1, sequence_length=length)
    data = MixedSkills(load_skills(config, reading_base.tokenizer), 4, config.seed)
    total, count = 0.0, 0
    for example in (data[number]["example"] for number in range(4)):
        losses = losses_by_hand(reading_base, example.ids)
        predicted = torch.tensor([label >= 0 for label in example.labels[1:]])
        total += float(losses[predicted].sum())
        count += int(predicted.sum())
    assert count < 4 * length
    events = []
    run_training(config, events.append, base=reading_base)
    [step] = [event for event in events if isinstance(event, StepDone)]
    assert step.language_loss == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize(
    ("length", "held_out"), [(32, 1), (32, 6), (100, 6)], ids=["first", "cut", "whole"]
)
def test_the_held_out_loss_is_that_of_evaluate(reading_base, changed, length, held_out):
    """Cut texts are read once each, so as many sequences are asked for as there are texts."""
    config = changed(steps=3, sequence_length=length, held_out_sequences=held_out)
    bank = run_training(config, base=reading_base)
    studio = Studio(reading_base.model, reading_base.tokenizer, bank)
    found = bank.training["held_out"]
    for skill in config.skills:
        rows = load_skills(config, reading_base.tokenizer)
        count = next(len(one.held_out) for one in rows if one.name == skill.name)
        texts = [json.loads(line)["text"] for line in skill.held_out[0].read_text().splitlines()]
        if count < len(texts):  # those that the run has chosen
            chosen = next(one.held_out for one in rows if one.name == skill.name)
            begun = {reading_base.tokenizer.decode(e.ids, skip_special_tokens=True) for e in chosen}
            texts = [text for text in texts if any(text.startswith(part) for part in begun)]
        table = studio.evaluate(texts, max_tokens=length).table()
        assert found["bank"][skill.name] == pytest.approx(
            table.loc["router", "all texts"], abs=1e-5
        )
        assert found["base"][skill.name] == pytest.approx(table.loc["base", "all texts"], abs=1e-5)


@pytest.fixture
def uneven(changed, tmp_path):
    """Options for a run whose sequences differ in length."""
    skills = changed().model_dump(mode="json")["skills"]
    for number, skill in enumerate(skills):
        rows = [
            {"prompt": "ask " * (1 + (i + number) % 4), "response": "ab12"[number::2] * (1 + i % 5)}
            for i in range(40)
        ]
        file = tmp_path / f"{number}-pairs.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        skill["train"] = [str(file)]
    return {"skills": skills, "steps": 6, "learning_rate": 0.003}


@pytest.fixture
def precision(request, monkeypatch):
    """What the code calls single precision."""
    single = torch.float32
    if request.param != single:
        monkeypatch.setattr(torch, "float32", request.param)
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(single)


@pytest.mark.parametrize(
    ("router", "precision"),
    [
        ({}, torch.float32),
        ({"activation": "sigmoid"}, torch.float32),
        ({"preset": "moiie"}, torch.float32),
        ({"scope": "module", "top_k": 1}, torch.float32),
        ({"scope": "module", "top_k": 1, "activation": "sigmoid"}, torch.float64),
    ],
    indirect=["precision"],
)
def test_accumulated_batches_give_what_one_batch_gives(base, changed, uneven, router, precision):
    """Rounding grows where Adam divides by small gradients; in double precision nothing is left of it."""
    base.model.to(precision)
    runs, steps = [], []
    for batch, accumulation in ((4, 1), (2, 2), (1, 4)):
        events = []
        options = {"batch_size": batch, "gradient_accumulation": accumulation}
        config = changed(**uneven, **options, router=router, save_dtype="bfloat16")
        assert config.balance_loss > 0
        runs.append(run_training(config, events.append, fresh=True, base=base))
        assert all(tensor.dtype == precision for tensor in tensors_of(runs[-1]))
        steps.append([event for event in events if isinstance(event, StepDone)])
    exact = precision == torch.float64
    close = {"atol": 1e-11 if exact else 1e-5, "rtol": 0}
    for other, their in zip(runs[1:], steps[1:], strict=True):
        torch.testing.assert_close(other.router_state, runs[0].router_state, **close)
        for a, b in zip(tensors_of(runs[0]), tensors_of(other), strict=True):
            torch.testing.assert_close(a, b, atol=1e-11 if exact else 1e-4, rtol=0)
        for a, b in zip(steps[0], their, strict=True):
            for part in ("loss", "language_loss", "balance_loss", "z_loss", "skill_loss"):
                assert getattr(a, part) == pytest.approx(getattr(b, part), abs=close["atol"])
