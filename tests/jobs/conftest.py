"""A home folder, and a config that trains a tiny bank in about a second on one thread."""

import json
import random
from contextlib import ExitStack, suppress

import pytest
import torch
from job_processes import kill
from tiny_models import make_tiny_base, make_tiny_tokenizer

from lmoe_studio.experts.files import load_bank
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.locks import FileLock
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.run import run_training

LETTERS = {"vowels": "aeiou ", "digits": "0123456789 "}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LMOE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(
        "OMP_NUM_THREADS", "1"
    )  # of the processes: tiny products gain nothing by two
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
    """Holds the lock of the one training, so that workers wait and need no torch, until closed."""
    home.mkdir(parents=True)
    lock = FileLock.take(home / "training.lock")
    assert lock is not None
    with ExitStack() as turn:
        turn.enter_context(lock)
        yield turn


@pytest.fixture(scope="session")
def tiny_base_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    make_tiny_base().save_pretrained(folder)
    make_tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def config(tiny_base_folder, tmp_path):
    return tiny_config(tiny_base_folder, tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tiny_base_folder, tmp_path_factory):
    """Events and bank of the same training without jobs, in this process."""
    events = []
    torch.set_num_threads(1)
    config = tiny_config(tiny_base_folder, tmp_path_factory.mktemp("run"))
    run_training(config, events.append)
    return events, load_bank(config.out)


def tiny_config(base, folder):
    """Two skills of sixty-letter texts, twenty steps, a checkpoint every other step."""
    draw = random.Random(0)
    skills = []
    for name, letters in LETTERS.items():
        for part, count in (("train", 20), ("held", 4)):
            texts = ["".join(draw.choices(letters, k=60)) for _ in range(count)]
            lines = "\n".join(json.dumps({"text": text}) for text in texts)
            (folder / f"{name}-{part}.jsonl").write_text(lines)
        skills.append(
            {"name": name, "train": [f"{name}-train.jsonl"], "held_out": [f"{name}-held.jsonl"]}
        )
    values = {
        "name": "tiny", "base": str(base), "out": "bank", "skills": skills, "rank": 2, "steps": 20,
        "sequence_length": 32, "device": "cpu", "held_out_sequences": 4, "eval_sequences": 2,
        "checkpoint_every": 2, "eval_every": 5,
    }  # fmt: skip
    (folder / "config.yaml").write_text(json.dumps(values))
    return TrainingConfig.read(folder / "config.yaml")
