"""A tiny base model and two skills that are easy to tell apart."""

import json

import pytest
import torch
from tiny_models import make_tiny_base, make_tiny_tokenizer

from lmoe_studio.base_models import BaseModel, identify
from lmoe_studio.training.config import TrainingConfig

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


@pytest.fixture
def changed(config):
    """The config with some options changed, checked as a file's would be."""

    def change(**options):
        values = config.model_dump(mode="json") | options
        return TrainingConfig.parse(values, source="config")

    return change
