"""Exports as files: every row, the same numbers, the size that was said, nothing where they stop."""

import gzip
import resource
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fake_studio import FakeStudio, make_trace

from analysis import site_frame
from lmoe_studio.errors import StorageError
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.tracing.files import load_trace
from lmoe_studio.ui.compared import runs_frame
from lmoe_studio.ui.exports import files
from lmoe_studio.ui.exports.exportable import Exportable
from lmoe_studio.ui.exports.files import formats_of, sizes, write_file
from lmoe_studio.ui.exports.sources import (
    runs_export,
    sites_export,
    table_export,
    trace_export,
    trace_exports,
)

READERS = {
    "parquet": pd.read_parquet,
    "csv": pd.read_csv,
    "csv.gz": pd.read_csv,
    "jsonl": lambda path: pd.read_json(path, lines=True),
}
LONG = make_trace([f" w{index}" for index in range(300)], layers=30)
SOLO = RoutingPlan([Override.solo("sql")])


def compared(reference="x"):
    return FakeStudio().compare(
        "=1+1 two", {"A": RoutingPlan(), "B": SOLO}, max_new_tokens=6, reference=reference
    )


def runs_of(made):
    return {name: run.trace for name, run in made.runs.items()}


EXPORTS = {
    "trace": trace_export(LONG),
    "sites": sites_export(LONG),
    "runs": runs_export({"A": LONG, "B": LONG}),
    "table": table_export(runs_frame(compared()), stem="texts", row="a run"),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("name", EXPORTS)
def test_a_file_holds_every_row_in_every_format(tmp_path, name, kind):
    export = EXPORTS[name]
    path = write_file(export, kind, tmp_path)
    assert path.name.startswith(export.stem)
    assert path.name.endswith(f".{kind}")
    assert len(READERS[kind](path)) == export.count
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["trace", "runs"])
def test_sizes_are_near_those_of_the_files(tmp_path, name):
    found = sizes(EXPORTS[name])
    assert set(found) == set(READERS)
    for kind, size in found.items():
        path = write_file(EXPORTS[name], kind, tmp_path)
        assert size == pytest.approx(path.stat().st_size, rel=0.1), kind


def test_a_trace_as_parquet_reads_back_equal_however_many_steps_it_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_ROWS", 1000)
    plans = [LONG, compared().runs["B"].trace]
    for trace in plans:
        assert load_trace(write_file(trace_export(trace), "parquet", tmp_path)) == trace


def test_router_sites_are_offered_where_they_say_something_and_are_the_site_frame(tmp_path):
    assert list(trace_exports(LONG, "routing")) == ["routing"]
    thin = replace(
        LONG, routing_weights=np.where(LONG.routing_weights > 0.2, LONG.routing_weights, 0)
    )
    types = replace(
        LONG, notes={"type": np.repeat([[0], [1], [1]] * 100, 30, axis=1)},
        router='{"options": {"types": [{"name": "=code"}]}}',
    )  # fmt: skip
    for trace in (thin, types):
        exports = trace_exports(trace, "routing")
        assert list(exports) == ["routing", "router sites"]
        path = write_file(exports["router sites"], "parquet", tmp_path)
        assert path.name.startswith("sites-demo-")
        pd.testing.assert_frame_equal(pd.read_parquet(path), site_frame(trace))
    guarded = pd.read_csv(write_file(sites_export(types), "csv", tmp_path))
    assert set(guarded["type"]) == {"other", "'=code"}


def test_no_text_of_a_csv_runs_as_a_formula_and_the_numbers_are_exact(tmp_path):
    trace = make_trace(["=1+1", " b"], layers=3)
    for kind in ("csv", "csv.gz"):
        frame = pd.read_csv(write_file(trace_export(trace), kind, tmp_path))
        assert frame["token"].iloc[0] == "'=1+1"
        np.testing.assert_allclose(frame["weight"], trace.routing_weights.ravel(), rtol=1e-6)


def test_the_rows_of_a_comparison_name_their_plan(tmp_path):
    traces = runs_of(compared())
    frame = pd.read_parquet(write_file(runs_export(traces), "parquet", tmp_path))
    assert list(frame["plan"].cat.categories) == ["base", "A", "B"]
    for name, trace in traces.items():
        mine = frame[frame["plan"] == name]
        np.testing.assert_array_equal(mine["weight"], trace.routing_weights.ravel())
        assert list(mine["token"].iloc[:: 30 * 8]) == list(trace.tokens)


def test_a_table_has_a_row_a_run_with_its_plan_text_and_numbers(tmp_path):
    made = compared()
    frame = pd.read_csv(write_file(EXPORTS["table"], "csv", tmp_path))
    assert list(frame["run"]) == ["base", "A", "B"]
    assert list(frame["prompt"].str.endswith("=1+1 two")) == [True] * 3
    assert [text.strip() for text in frame["text"]] == [
        run.text.strip() for run in made.runs.values()
    ]
    assert list(frame["against_base"]) == [0, -1, -2]
    assert [RoutingPlan.from_json(plan) for plan in frame["plan"]][1:] == [RoutingPlan(), SOLO]
    without = runs_frame(compared(reference=None))
    assert without["reference_logprob"].isna().all()


def test_what_was_written_is_a_text_without_marks_and_parts_of_characters(tmp_path):
    tokens = ["<|im_start|>", "un", " caf", "\ufffd", "é", "\n", "où"]
    trace = make_trace(tokens, layers=1)
    assert "txt" not in formats_of(trace_export(trace)), "nothing was written"
    trace = replace(trace, generated=np.arange(len(tokens)) > 3)
    path = write_file(trace_export(trace), "txt", tmp_path)
    assert path.read_text(encoding="utf-8") == "un café\noù"


@pytest.mark.parametrize("kind", READERS)
def test_a_file_is_written_in_steps_and_nothing_is_left_where_it_is_stopped(
    tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(files, "_ROWS", 5000)
    shares = []
    assert write_file(EXPORTS["runs"], kind, tmp_path, on_progress=shares.append)
    assert shares == sorted(shares)
    assert (len(shares) > 3, shares[-1]) == (True, 1)
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    asked = iter([False, False, True])
    assert write_file(EXPORTS["runs"], kind, stopped, should_stop=lambda: next(asked)) is None
    assert not list(stopped.iterdir())


def test_a_document_ends_at_the_piece_at_which_it_is_stopped(tmp_path):
    made, heard = [], []
    pieces = [lambda n=n: made.append(n) or f"{n}ä" for n in range(4)]
    export = Exportable("report", "a row", 0, lambda _: iter(()), {"html": pieces})
    stop = {"should_stop": lambda: len(made) == 2}
    assert write_file(export, "html", tmp_path, on_progress=heard.append, **stop) is None
    assert (made, heard, list(tmp_path.iterdir())) == ([0, 1], [0.25, 0.5], [])
    path = write_file(export, "html", tmp_path, on_progress=heard.append)
    assert path.read_text(encoding="utf-8") == "0ä1ä2ä3ä"
    assert heard[-1] == 1


@contextmanager
def small_disk():
    """No file may have more than 500 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kind", [*READERS, "txt"])
def test_a_disk_without_room_is_said_in_a_sentence_and_nothing_is_left(tmp_path, kind):
    trace = replace(LONG, generated=np.ones(len(LONG), dtype=bool))
    message = rf"^trace-demo-.*{kind} cannot be written: File too large"
    with small_disk(), pytest.raises(StorageError, match=message):
        write_file(trace_export(trace), kind, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", READERS)
def test_any_text_can_be_written(tmp_path, kind):
    tokens = ["a\ud800", "\0", "\r\n", '"', ",", "\u2028", "\x1b", "é", ""]
    trace = make_trace(tokens, layers=1, experts=("x\ud800", "y"))
    for export in (trace_export(trace), runs_export({"A": trace})):
        frame = READERS[kind](write_file(export, kind, tmp_path))
        assert len(frame) == export.count


def test_nothing_to_write_is_no_fault(tmp_path):
    empty = trace_export(make_trace([], layers=2))
    assert sizes(empty) == {}
    for kind in ("csv", "parquet"):
        frame = READERS[kind](write_file(empty, kind, tmp_path))
        assert (len(frame), "weight" in frame) == (0, True)


def test_a_gzipped_csv_is_the_csv(tmp_path):
    plain, packed = (write_file(EXPORTS["table"], kind, tmp_path) for kind in ("csv", "csv.gz"))
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
