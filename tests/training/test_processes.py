"""Two processes that train together equal one with the same sequences."""

import json
import os
import subprocess
import sys

import pytest
from tiny_models import make_tiny_base, make_tiny_tokenizer


def train(config, path, *, processes, **options):
    """`lmoe train` as a person would start it; gives the bank's training report."""
    config.model_copy(update={"out": path, **options}).write(path.with_suffix(".yaml"))
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else [])]
    done = subprocess.run(
        [*command, "-m", "lmoe_studio", "train", str(path.with_suffix(".yaml"))],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((path / "training.json").read_text()), done.stderr


@pytest.mark.slow
def test_two_processes_equal_one_with_the_same_global_batch(config, tmp_path):
    make_tiny_base().save_pretrained(tmp_path / "base")
    make_tiny_tokenizer().save_pretrained(tmp_path / "base")
    settings = config.model_copy(update={"base": str(tmp_path / "base"), "steps": 20})
    options = {"held_out_sequences": 2, "eval_sequences": 2, "eval_every": 10}
    one, _ = train(settings, tmp_path / "one", processes=1, batch_size=8, **options)
    options |= {"batch_size": 2, "gradient_accumulation": 2}
    two, said = train(settings, tmp_path / "two", processes=2, **options)
    assert len(one["curve"]) == len(two["curve"]) == 20
    for a, b in zip(one["curve"], two["curve"], strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    for model in ("base", "bank"):
        assert one["held_out"][model] == pytest.approx(two["held_out"][model], abs=1e-4)
    assert said.count("Wrote ") == 1  # one process speaks for both
