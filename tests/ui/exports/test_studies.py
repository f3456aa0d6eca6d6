"""A study's exports: the run that was studied, and the report."""

import json
from threading import Event

import numpy as np
import pandas as pd
import pytest
from tiny_models import make_tiny_studio

from analysis import label_owners
from lmoe_studio.ui.corpus_columns import chosen_corpus, given_corpus
from lmoe_studio.ui.exports.files import sizes, write_file
from lmoe_studio.ui.exports.sources import study_export
from lmoe_studio.ui.studies import make_study

ROWS = [
    {"text": f"{label} text {n} <b>=1+1</b>", "skill": label}
    for label in ("sql", "prose") for n in range(5)
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    return make_tiny_studio()


@pytest.fixture(scope="module")
def kept(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    path = given_corpus("\n".join(map(json.dumps, ROWS)), None, folder)
    assert path is not None
    return make_study(
        tiny, chosen_corpus(path, None, None), folder, max_tokens=64,
        stop=Event(), on_progress=lambda _: None, on_step=lambda _: None,
    )  # fmt: skip


def test_they_hold_every_row_and_the_same_numbers(tiny, kept, tmp_path):
    export = study_export(kept)
    rows = pd.read_parquet(kept.runs)
    exact = pd.read_parquet(write_file(export, "parquet", tmp_path))
    np.testing.assert_array_equal(exact["weight"], rows["weight"])
    assert exact["weight"].dtype == np.float32
    assert list(exact["expert"].cat.categories) == list(tiny.bank.expert_names)
    pd.testing.assert_frame_equal(label_owners(exact), label_owners(rows))
    table = pd.read_csv(write_file(export, "csv", tmp_path))
    np.testing.assert_allclose(table["weight"], rows["weight"], rtol=1e-7)
    assert set(table["token"][rows["token"].astype(str) == "="]) == {"'="}
    lines = pd.read_json(write_file(export, "jsonl", tmp_path), lines=True)
    assert len(lines) == len(table) == len(rows) == export.count
    assert "Which expert handles" in write_file(export, "html", tmp_path).read_text()


def test_sizes_are_near_those_of_the_files(kept, tmp_path):
    export = study_export(kept)
    for kind, size in sizes(export).items():
        path = write_file(export, kind, tmp_path)
        assert size == pytest.approx(path.stat().st_size, rel=0.1), kind
