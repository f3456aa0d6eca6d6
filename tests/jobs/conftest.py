"""A home folder, and a config that trains a tiny bank in about a second."""

import json
import random
from contextlib import suppress

import pytest
from job_processes import kill
from tiny_models import make_tiny_base, make_tiny_tokenizer

from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.jobs.locks import FileLock
from lmoe_studio.training.config import TrainingConfig

LETTERS = {"vowels": "aeiou ", "digits": "0123456789 "}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LMOE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def jobs(home):
    """The jobs of the home folder; whatever still lives at the end of a test is killed."""
    jobs = Jobs(home)
    yield jobs
    with suppress(Exception):
        for job in jobs.list():
            if job.is_live and job.pid:
                kill(job.pid)


@pytest.fixture
def busy(home):
    """Holds the lock of the one training, so that workers wait and need no torch."""
    home.mkdir(parents=True)
    lock = FileLock.take(home / "training.lock")
    assert lock is not None
    with lock:
        yield lock


@pytest.fixture(scope="session")
def tiny_base_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    make_tiny_base().save_pretrained(folder)
    make_tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def config(tiny_base_folder, tmp_path):
    """Two skills of sixty-letter texts, ten steps, a checkpoint every other step."""
    draw = random.Random(0)
    skills = []
    for name, letters in LETTERS.items():
        for part, count in (("train", 20), ("held", 4)):
            texts = ["".join(draw.choices(letters, k=60)) for _ in range(count)]
            lines = "\n".join(json.dumps({"text": text}) for text in texts)
            (tmp_path / f"{name}-{part}.jsonl").write_text(lines)
        skills.append(
            {"name": name, "train": [f"{name}-train.jsonl"], "held_out": [f"{name}-held.jsonl"]}
        )
    values = {
        "name": "tiny", "base": str(tiny_base_folder), "out": "bank", "skills": skills, "rank": 2,
        "steps": 10, "sequence_length": 32, "device": "cpu", "held_out_sequences": 4,
        "checkpoint_every": 2,
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    return TrainingConfig.read(tmp_path / "config.yaml")
