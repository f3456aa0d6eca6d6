"""What pages are told of jobs: lines that stay short, looks that fetch only what is new, every state."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st
from made_jobs import evaluated, step_done

from lmoe_studio.errors import JobError, StorageError
from lmoe_studio.jobs import store as store_module
from lmoe_studio.jobs.job import JobState
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.training.events import CheckpointRefused, Message, Resumed
from lmoe_studio.ui.training import watch as watch_module
from lmoe_studio.ui.training.curves import job_curves
from lmoe_studio.ui.training.lines import Line
from lmoe_studio.ui.training.views import (
    duration,
    job_details,
    job_head,
    job_list,
    training_line,
)
from lmoe_studio.ui.training.watch import JobWatch

# Lines


@given(st.integers(1, 2000), st.integers(1, 60), st.integers(2, 40), st.integers(1, 40))
def test_a_line_is_never_longer_than_asked_for_and_keeps_its_mean(count, apart, kept, asked):
    """Also one that has a value only now and then."""
    line = Line(kept)
    values = [math.sin(place) for place in range(count)]
    for place, value in enumerate(values, start=1):
        line.add(place * apart, value)
    assert len(line) <= kept
    points = list(line.points(asked))
    assert len(points) <= asked
    steps = [step for step, _ in points]
    assert steps[-1] == count * apart
    assert steps == sorted(set(steps))
    counts = [(after - before) // apart for before, after in pairwise([0, *steps])]
    mean = sum(value * many for (_, value), many in zip(points, counts, strict=True)) / count
    assert mean == pytest.approx(sum(values) / count)


def test_a_short_line_is_exact_and_what_is_no_number_is_left_out():
    line = Line()
    for step, value in enumerate([3.0, 2.0, float("nan"), float("inf"), 1.0]):
        line.add(step, value)
    assert list(line.points()) == [(0, 3.0), (1, 2.0), (4, 1.0)]


def test_steps_that_a_resumed_run_does_again_change_nothing():
    line = Line(8)
    for step in [*range(1, 30), *range(11, 30), 30, 31]:
        line.add(step, float(step))
    once = Line(8)
    for step in range(1, 32):
        once.add(step, float(step))
    assert list(line.points()) == list(once.points())


# Looks


@pytest.fixture
def watch(made):
    return JobWatch(made.jobs)


def test_a_look_fetches_only_what_is_new(made, watch, monkeypatch):
    made.add("aaaaa", step=30)
    asked, events = [], Jobs.events

    def noted(self, job, *, after=0, limit=0):
        found = events(self, job, after=after, limit=limit)
        asked.append((after, len(found)))
        return found

    monkeypatch.setattr(Jobs, "events", noted)
    for more in (range(31, 34), range(34, 34)):
        with watch.progress("aaaaa") as progress:
            seen = progress.cursor
        for step in more:
            made.tell("aaaaa", step_done(step, 120))
        with watch.progress("aaaaa") as progress:
            assert progress.step == step_done(33, 120)
        assert asked[-1] == (seen, len(more))
    with watch.progress("aaaaa") as progress:
        assert len(progress.loss) == 33
        assert [step for step, _ in progress.held_out["sql"].points()] == [0, 10, 20, 30]
        assert progress.saved == 30


def test_a_long_run_is_caught_up_with_in_several_looks(made, watch, monkeypatch):
    monkeypatch.setattr(watch_module, "_MOST_EVENTS", 20)
    made.add("aaaaa", step=50)
    counts = []
    for _ in range(5):
        with watch.progress("aaaaa") as progress:
            counts.append(len(progress.loss))
    assert counts == sorted(counts)
    assert counts[0] < 20
    assert counts[-1] == 50


def test_a_list_is_looked_up_once_for_all_pages_that_ask_at_once(made, watch, monkeypatch):
    made.add("aaaaa")
    looks, listed = [], Jobs.list
    monkeypatch.setattr(Jobs, "list", lambda self: looks.append(1) or listed(self))
    for _ in range(50):
        assert [job.id for job in watch.list()] == ["aaaaa"]
    assert len(looks) < 10
    made.add("bbbbb", "other")
    assert len(watch.list(fresh=True)) == 2


def test_a_stop_is_remembered_until_the_job_has_stopped(made, watch):
    made.add("aaaaa", step=3)
    assert not watch.is_stopping("aaaaa")
    watch.stop("aaaaa")
    watch.list(fresh=True)
    assert watch.is_stopping("aaaaa")
    made.end("aaaaa", JobState.CANCELLED)
    watch.list(fresh=True)
    assert not watch.is_stopping("aaaaa")
    with pytest.raises(JobError, match="cancelled"):
        watch.stop("aaaaa")


def test_jobs_that_are_gone_or_unreadable_are_errors_with_a_sentence(made, watch, tmp_path):
    made.add("aaaaa", state=JobState.FAILED)
    with watch.progress("aaaaa"):
        pass
    made.jobs.remove("aaaaa")
    with pytest.raises(JobError), watch.progress("aaaaa"):
        pass
    assert list(watch.log("aaaaa", 5)) == []
    (tmp_path / "jobs.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="is damaged"):
        JobWatch(Jobs(tmp_path)).list()


# Words


def head_of(watch, id="aaaaa", *, stopping=False):
    jobs = watch.list(fresh=True)
    job = next(job for job in jobs if job.id == id)
    with watch.progress(id) as progress:
        return job_head(job, progress, jobs, stopping=stopping)


def test_every_state_has_a_sentence_and_what_can_be_done(made, watch):
    made.add("aaaaa", "queue", JobState.QUEUED)
    assert head_of(watch)["says"].startswith("It waits for its turn: its turn comes")
    made.add("bbbbb", "busy", step=20)
    assert "'busy' trains at the moment" in head_of(watch)["says"]
    assert head_of(watch)["acts"] == ["stop"]
    running = head_of(watch, "bbbbb")
    assert running["says"] == "About 2 min left. You may close the page; training goes on."
    assert "812 tokens/s" in running["facts"]
    assert "held-out loss 2.70 (base model 3.05)" in " ".join(running["facts"])
    assert head_of(watch, "bbbbb", stopping=True)["says"].endswith("and saves.")
    made.add("ccccc", "new", step=0)
    assert head_of(watch, "ccccc")["says"] == "Reading and tokenising the texts…"
    made.add("ddddd", "bad", JobState.FAILED, reason="The loss is not finite.", step=9)
    assert head_of(watch, "ddddd")["says"] == "The loss is not finite."
    assert head_of(watch, "ddddd")["acts"] == ["resume", "remove"]
    made.add("eeeee", "still", JobState.CANCELLED, step=50)
    assert head_of(watch, "eeeee")["says"].startswith("It was stopped after step 50 of 120")
    assert "saved at step 50" in head_of(watch, "eeeee")["facts"]
    made.add("fffff", "gone", JobState.INTERRUPTED, step=1)
    assert "resume" in head_of(watch, "fffff")["says"]
    (made.home / "banks" / "good").mkdir(parents=True)
    made.add("ggggg", "good", JobState.DONE, step=120)
    assert head_of(watch, "ggggg")["acts"] == ["open", "remove"]
    made.add("hhhhh", "lost", JobState.DONE, step=120)
    assert head_of(watch, "hhhhh")["acts"] == ["remove"]
    assert "not there any more" in head_of(watch, "hhhhh")["says"]


def test_after_a_resume_the_sentence_is_not_about_the_run_before(made, watch, monkeypatch):
    made.add("aaaaa", state=JobState.INTERRUPTED, step=40)
    monkeypatch.setattr(store_module, "now", lambda: "2999-01-01T00:00:00+00:00")
    made.again("aaaaa")
    assert head_of(watch)["says"] == "Starting…"
    made.tell("aaaaa", Message("Reading the texts"))
    assert head_of(watch)["says"] == "Reading the texts…"
    assert "tokens/s" not in " ".join(head_of(watch)["facts"])
    made.tell("aaaaa", CheckpointRefused("x", "its sha256 differs"))
    made.tell("aaaaa", Resumed(30))
    made.tell("aaaaa", step_done(31, 120))
    head = head_of(watch)
    assert head["says"].startswith("About 2 min left")
    assert "a checkpoint was damaged (its sha256 differs); an older one was used" in head["facts"]


def test_details_name_what_was_read_and_left_out_and_mark_poor_health(made, watch):
    made.add(
        "aaaaa", step=12, health="collapsed", dropped={"blank": 3, "prompt too long": 1200, "x": 0}
    )
    [job] = watch.list()
    with watch.progress("aaaaa") as progress:
        details = job_details(job, progress, ["a line", "\ud800"])
    sql, french = details["skills"]
    assert (sql["name"], sql["glyph"], french["glyph"]) == ("sql", "A", "B")
    assert sql["data"] == "420 texts, 21 held out, 24,000 tokens"
    assert sql["dropped"] == "3 blank, 1,200 prompt too long"
    assert sql["base"] == pytest.approx(2.9)
    assert sql["bank"] < sql["base"]
    assert [light["health"] for light in details["lights"]] == ["good", "collapsed", "good"]
    assert "unused: french" in details["lights"][1]["says"]
    assert details["log"] == ["a line", "\ufffd"]


def curves_of(watch):
    [job] = watch.list(fresh=True)
    with watch.progress(job.id) as progress:
        return job_curves(job, progress)


def points_of(curve):
    return {f"{line['glyph']} {line['name']}".strip(): line["points"] for line in curve["lines"]}


def test_curves_hold_training_and_held_out_losses_and_the_base_model(made, watch):
    made.add("aaaaa", step=25)
    losses, shares = curves_of(watch)["curves"]
    lines = points_of(losses)
    assert list(lines) == ["training", "base model", "A sql", "B french"]
    assert lines["training"][-1] == (25, round(step_done(25, 120).language_loss, 4))
    assert lines["base model"] == [(0, 3.05), (25, 3.05)]
    assert lines["B french"] == [
        (step, pytest.approx(evaluated(step, 120).bank["french"], abs=1e-4)) for step in (0, 10, 20)
    ]
    assert [line["name"] for line in losses["lines"] if line["is_reference"]] == ["base model"]
    of_sql, of_french = (dict(points) for points in points_of(shares).values())
    assert list(of_sql) == list(range(1, 26))
    assert all(of_sql[step] + of_french[step] == pytest.approx(1, abs=1e-3) for step in of_sql)


def test_there_are_no_curves_before_there_is_a_line(made, watch):
    made.add("aaaaa", step=1)
    assert curves_of(watch)["curves"] == []
    made.steps("aaaaa", 2, 2)
    assert len(curves_of(watch)["curves"]) == 2


def test_an_expert_named_like_another_line_is_a_line_of_its_own(made, watch):
    made.add("aaaaa", step=12, experts=("training", "base model"))
    losses = curves_of(watch)["curves"][0]
    assert list(points_of(losses)) == ["training", "base model", "A training", "B base model"]
    assert sum(line["is_reference"] for line in losses["lines"]) == 1


@pytest.mark.parametrize("experts", [2, 12, 40])
def test_a_page_is_sent_few_points_however_many_experts_and_steps(made, watch, experts):
    names = tuple(f"expert{number}" for number in range(experts))
    made.add("aaaaa", step=600, experts=names, every=5)
    for curve in curves_of(watch)["curves"]:
        assert sum(len(line["points"]) for line in curve["lines"]) <= 960
        assert {line["points"][-1][0] for line in curve["lines"]} == {600}


def test_the_top_line_tells_what_trains(made, watch):
    assert training_line([], None) == ""
    made.add("aaaaa", "mine", step=20)
    made.add("bbbbb", "next", JobState.QUEUED)
    assert training_line(watch.list(fresh=True), 1.934) == (
        "mine: training step 20/120 (loss 1.93) · 1 queued"
    )
    made.end("aaaaa", JobState.FAILED)
    assert training_line(watch.list(fresh=True), None) == "1 job queued"


def test_the_list_is_newest_first(made, watch):
    for id in ("aaaaa", "bbbbb"):
        made.add(id, id, JobState.CANCELLED, step=60)
    shown = job_list(watch.list(), "aaaaa")
    assert [row["id"] for row in shown["jobs"]] == ["bbbbb", "aaaaa"]
    assert shown["jobs"][0]["share"] == 0.5


def test_durations_are_for_people():
    assert [duration(s) for s in (3.4, 89, 200, 4000, 9000)] == [
        "3 s",
        "89 s",
        "3 min",
        "67 min",
        "2.5 h",
    ]
