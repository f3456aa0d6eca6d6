"""The command, from end to end on a tiny base model."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.speed.__main__ import main
from benchmarks.speed.measure import Spread
from benchmarks.speed.memory import memory_of
from benchmarks.speed.report import Report
from benchmarks.speed.tables import page
from lmoe_studio.errors import ConfigError

QUICK = ("--shape", "tiny", "--rounds", 3)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The file of a small run."""
    path = tmp_path_factory.mktemp("speed") / "speed.json"
    run(*QUICK, "--only", "decode,trace", "--json", path, "--markdown", path.with_suffix(".md"))
    return path


def run(*arguments) -> int:
    """The command line; gives its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["speed", *map(str, arguments)])
        try:
            main()
        except SystemExit as stopped:
            return int(stopped.code or 0)
    return 0


def scaled(spread: Spread, factor: float) -> Spread:
    return Spread(**{name: value * factor for name, value in spread.model_dump().items()})


def write_scaled(path: Path, out: Path, factor: float) -> Path:
    """The same report with all ratios that much larger."""
    report = Report.read(path)
    for row in report.rows.values():
        for name, one in row.cases.items():
            row.cases[name] = one.model_copy(update={"ratio": scaled(one.ratio, factor)})
    out.write_text(report.model_dump_json())
    return out


def test_a_run_writes_what_it_measured_and_reads_it_back(report):
    found = Report.read(report)
    assert list(found.rows) == ["decode", "trace"]
    assert (found.shape, found.device, found.dtype) == ("tiny", "cpu", "float32")
    cases = found.rows["decode"].cases
    assert cases["PEFT LoRA, rank 16"].ratio == Spread(low=1, median=1, high=1)
    assert all(0 < one.value.median < 60 for one in cases.values())
    assert json.loads(report.read_text())["machine"]["threads"] == 1


def test_the_page_has_every_row_and_case(report):
    text, found = report.with_suffix(".md").read_text(), Report.read(report)
    assert text == page([found])
    for row in found.rows.values():
        assert f" {row.title} |" in text
        assert all(f"\n| {name} |" in text for name in row.cases)
    assert str(found.machine) in text


def test_a_check_fails_with_a_sentence_when_a_ratio_was_far_lower_before(report, tmp_path, capsys):
    before = write_scaled(report, tmp_path / "before.json", 0.01)
    assert run("--check", before, "--rounds", 3, "--only", "decode") == 1
    sentences = capsys.readouterr().err.splitlines()
    ours = [n for n in Report.read(report).rows["decode"].cases if n.startswith("L-MoE")]
    assert len(sentences) == len(ours)
    assert all(" times what PEFT LoRA, rank 16 did, where " in one for one in sentences)


def test_a_check_passes_when_a_ratio_was_far_higher_before(report, tmp_path, capsys):
    before = write_scaled(report, tmp_path / "before.json", 100)
    assert run("--check", before, "--rounds", 3, "--only", "decode") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "PEFT X-LoRA" not in out  # only ours, and what they are held against


def test_rows_measured_later_join_those_of_the_same_machine(report, tmp_path):
    path = tmp_path / "speed.json"
    path.write_text(report.read_text())
    before = Report.read(path)
    assert run(*QUICK, "--only", "forward/1x64", "--json", path) == 0
    after = Report.read(path)
    assert set(after.rows) == {"decode", "trace", "forward/1x64"}
    assert after.rows["decode"] == before.rows["decode"]


def test_rows_of_another_machine_do_not(report):
    here = Report.read(report)
    there = here.model_copy(update={"machine": here.machine.model_copy(update={"threads": 7})})
    with pytest.raises(ConfigError, match="write another file"):
        here.updated(there)


def test_a_row_that_there_is_not_is_refused(capsys):
    assert run("--only", "forward/1x65") == 2
    assert "no row or group 'forward/1x65'; the rows are forward/1x64," in capsys.readouterr().err


@pytest.mark.slow
def test_memory_is_weighed_in_a_fresh_process_each():
    found = memory_of("tiny", "cpu", "memory/train", "L-MoE output")
    assert 50e6 < found.rest < found.peak < 5e9
    assert found.added == found.peak - found.rest
