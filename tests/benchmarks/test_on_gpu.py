"""The one command for a GPU, rehearsed on a CPU: what is done is not done again, and no part hangs."""

import json
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "on_gpu.sh"


def run(out, *options):
    command = ["bash", str(SCRIPT), "--device", "cpu", "--rehearse", "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_without_time_nothing_runs_and_it_says_how_to_go_on(tmp_path):
    ended = run(tmp_path, "--seconds", "5")
    assert ended.returncode == 1
    assert "tests: no time left; call again to go on" in ended.stdout
    assert list((tmp_path / "done").iterdir()) == []


def test_an_unknown_option_is_refused():
    ended = subprocess.run(["bash", str(SCRIPT), "--fast"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "unknown option '--fast'" in ended.stderr


@pytest.mark.slow
def test_a_rehearsal_writes_figures_and_tables_and_a_second_call_skips_them(tmp_path):
    done = tmp_path / "done"
    done.mkdir()
    (done / "tests").touch()  # as if an earlier call had got that far
    first = run(tmp_path)
    assert first.returncode == 0, first.stdout
    report = json.loads((tmp_path / "speed-tiny.json").read_text())
    assert set(report["rows"]) == {"forward/1x64", "decode", "generate"}
    assert "## tiny on a CPU" in (tmp_path / "speed.md").read_text()
    again = run(tmp_path)
    assert again.returncode == 0
    assert again.stdout.count("done before") == 3
