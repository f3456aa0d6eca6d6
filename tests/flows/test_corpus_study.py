"""The whole way on the demo bank: a file of fresh texts, one command, a few lines of pandas."""

import json
import sys

import pandas as pd
import pytest
from held_out_texts import TEXTS

from analysis import label_owners, specialisation
from lmoe_studio.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.real]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    rows = [{"text": text, "skill": skill} for skill, texts in TEXTS.items() for text in texts]
    data = folder / "texts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ["trace", "--data", data, "--label-column", "skill", "--out", folder / "x"]
    run(*arguments, "--device", "cpu")
    return folder


def run(*arguments):
    before, sys.argv = sys.argv, ["lmoe", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
    finally:
        sys.argv = before


def test_five_lines_of_pandas_say_which_expert_handles_which_skill_and_where(folder):
    frame = pd.read_parquet(folder / "x")
    owners = label_owners(frame).set_index("label")
    assert owners["expert"].astype(str).to_dict() == {skill: skill for skill in TEXTS}
    assert (owners["p_value"] <= 0.05).all()
    assert owners["layer"].between(0, 29).all()


def test_specialisation_is_well_above_what_chance_gives(folder):
    table = specialisation(pd.read_parquet(folder / "x"))
    assert (table["p_value"] <= 0.05).all()
    assert (table["information"] > 1.3 * table["baseline_95"]).mean() > 0.9
    upper = table[table["layer"] >= 15]
    assert (upper["p_value"] < 0.01).all()
    # Few sequences make shuffled labels look informative too; what is beyond that is real.
    assert (upper["information"] - upper["baseline"]).mean() > 0.5


def test_the_report_says_the_same(folder, capsys):
    run("report", folder / "x", "--out", folder / "report.html")
    told = capsys.readouterr().out
    page = (folder / "report.html").read_text()
    for skill in TEXTS:
        sentence = f"{skill} is handled by expert {skill}"
        assert sentence in told
        assert sentence in page
