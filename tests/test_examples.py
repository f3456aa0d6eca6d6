"""The examples run as a person runs them, on a tiny bank in a folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import make_bank, make_tiny_base, make_tiny_tokenizer

from lmoe_studio.experts.files import save_bank

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    base = tmp_path_factory.mktemp("base")
    make_tiny_base().save_pretrained(base)
    make_tiny_tokenizer().save_pretrained(base)
    folder = tmp_path_factory.mktemp("banks")
    return [
        save_bank(make_bank(make_tiny_base(), base_id=str(base), seed=seed), folder / f"b{seed}")
        for seed in (1, 2)
    ]


def run(script, *arguments):
    command = [sys.executable, EXAMPLES / script, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_explore_text(banks):
    answer = run("explore_text.py", "--bank", banks[0], "--text", "hello")
    assert "Sharpest in layer" in answer
    assert "of_contributions" in answer


@pytest.mark.slow
def test_corpus_study(banks, tmp_path):
    data = tmp_path / "texts.jsonl"
    rows = [
        {"text": f"{label} {n}", "label": label} for label in ("sql", "prose") for n in range(4)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = run("corpus_study.py", "--bank", banks[0], "--data", data, "--out", tmp_path / "x")
    assert "8 texts" in answer
    assert "Which expert handles which label" in (tmp_path / "x" / "report.html").read_text()


@pytest.mark.slow
def test_compare_banks(banks, tmp_path):
    answer = run("compare_banks.py", *banks, "--out", tmp_path)
    assert "Experts: sql ~ sql" in answer
    assert "How far apart by layer" in answer
