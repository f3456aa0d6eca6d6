"""What pages are told of jobs: lines that stay short, looks that fetch only what is new, every state."""

import math

import pytest
from hypothesis import given, strategies as st
from made_jobs import EXPERTS, evaluated, made_jobs, step_done

from lmoe_studio.errors import JobError, StorageError
from lmoe_studio.jobs import store as store_module
from lmoe_studio.jobs.job import JobState
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.training.events import CheckpointRefused, Message, Resumed
from lmoe_studio.ui.training import watch as watch_module
from lmoe_studio.ui.training.lines import Line, lines_frame
from lmoe_studio.ui.training.views import (
    BASE_LINE,
    TRAINING_LINE,
    duration,
    experts_of,
    job_details,
    job_head,
    job_list,
    legend,
    line_colours,
    line_names,
    loss_lines,
    share_lines,
    training_line,
)
from lmoe_studio.ui.training.watch import JobWatch

# Lines


@given(st.integers(1, 5000), st.integers(2, 40), st.integers(1, 40))
def test_a_line_is_never_longer_than_asked_for_and_keeps_its_mean(steps, kept, asked):
    line = Line(kept)
    values = [math.sin(step) for step in range(1, steps + 1)]
    for step, value in enumerate(values, start=1):
        line.add(step, value)
    assert len(line) <= kept
    points = list(line.points(asked))
    assert len(points) <= asked + 1  # the first bucket may be begun halfway
    assert points[-1][0] == steps
    assert [step for step, _ in points] == sorted({step for step, _ in points})
    counts = [
        b - a for a, b in zip([0, *(s for s, _ in points)], (s for s, _ in points), strict=False)
    ]
    mean = sum(value * count for (_, value), count in zip(points, counts, strict=True)) / steps
    assert mean == pytest.approx(sum(values) / steps)


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


def test_many_lines_share_the_rows_of_a_plot():
    lines = {str(number): Line() for number in range(12)}
    for line in lines.values():
        for step in range(600):
            line.add(step, 1.0)
    frame = lines_frame(lines, "loss")
    assert list(frame.columns) == ["step", "loss", "line"]
    assert len(frame) <= 1000
    assert frame["line"].nunique() == 12


# Looks


@pytest.fixture
def made(tmp_path):
    with made_jobs(tmp_path / "home") as made:
        yield made


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


def test_curves_hold_training_and_held_out_losses_and_the_base_model(made, watch):
    made.add("aaaaa", step=25)
    with watch.progress("aaaaa") as progress:
        experts = experts_of(progress)
        losses, shares = loss_lines(progress, experts), share_lines(progress, experts)
    assert experts == list(EXPERTS)
    assert set(losses["line"]) == {TRAINING_LINE, BASE_LINE, "A sql", "B french"}
    base = losses[losses["line"] == BASE_LINE]
    assert list(base["step"]) == [0, 25]
    assert set(base["loss"]) == {3.05}
    own = losses[losses["line"] == "B french"]
    assert list(own["step"]) == [0, 10, 20]
    assert own["loss"].iloc[-1] == pytest.approx(evaluated(20, 120).bank["french"], abs=1e-4)
    assert shares.groupby("step")["share"].sum().round(3).eq(1).all()
    assert set(line_colours(experts)) >= set(losses["line"])


def test_names_in_a_legend_stay_short():
    long = [f"{letter}-{'x' * 70}" for letter in "abcdefghijkl"]
    for many in (1, 2, 4, 6):
        assert sum(map(len, line_names(long[:many]))) < 80
        assert legend(long[:many]) is None
    assert line_names(long) == list("ABCDEFGHIJKL")
    assert legend(long) == [TRAINING_LINE, BASE_LINE]


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
