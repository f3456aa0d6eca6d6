"""The store: many writers, a cursor that misses nothing, and files that are not what they should be."""

import sqlite3

import pytest
from job_processes import kill, run_python, until

from lmoe_studio.errors import StorageError
from lmoe_studio.jobs.job import JobState
from lmoe_studio.jobs.store import JobStore
from lmoe_studio.training.events import EvalDone, Message, StepDone

WRITER = """
import sys
from pathlib import Path
from lmoe_studio.jobs.store import JobStore
from lmoe_studio.training.events import EvalDone
store, first, last = JobStore(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
for step in range(first, last):
    store.add_event("j", EvalDone(step, {}, {"writer": float(sys.argv[4])}))
    print(step, flush=True)
"""


@pytest.fixture
def store(tmp_path):
    store = JobStore(tmp_path / "home")
    yield store
    store.close()


def evaluation(step, loss=0.0):
    return EvalDone(step, {}, {"a": loss})


def steps_of(store, job="j"):
    return [item.event.step for item in store.events(job, 0, 1_000_000)]


def finish(writers):
    for writer in writers:
        _, err = writer.communicate()
        assert writer.returncode == 0, err


@pytest.mark.slow
def test_four_writers_lose_and_double_no_row(store):
    store.add("j", "bank", 4000)
    finish([run_python(WRITER, store.home, n * 1000, (n + 1) * 1000, n) for n in range(4)])
    assert sorted(steps_of(store)) == list(range(4000))
    cursors = [item.cursor for item in store.events("j", 0, 1_000_000)]
    assert cursors == sorted(set(cursors))


@pytest.mark.slow
def test_who_follows_the_cursor_sees_the_last_word_on_every_step(store):
    """Four writers go over the same steps while a reader follows."""
    store.add("j", "bank", 200)
    writers = [run_python(WRITER, store.home, 0, 200, n) for n in range(4)]
    mirror, after = {}, 0

    def follow():
        nonlocal after
        for item in store.events("j", after, 50):
            assert item.cursor > after
            mirror[item.event.step] = item.event
            after = item.cursor
        return all(writer.poll() is not None for writer in writers)

    until(follow)
    finish(writers)
    while store.events("j", after, 50):
        follow()
    assert mirror == {item.event.step: item.event for item in store.events("j", 0, 1000)}
    assert sorted(mirror) == list(range(200))


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_that_it_was_told_is_kept(store):
    store.add("j", "bank", 10_000)
    writer = run_python(WRITER, store.home, 0, 10_000, 0)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(100)]
    kill(writer.pid)
    acknowledged += [int(line) for line in writer.communicate()[0].split()]
    kept = steps_of(JobStore(store.home))
    assert kept == list(range(len(kept)))
    assert acknowledged == kept[: len(acknowledged)]


def test_a_step_done_again_takes_the_place_of_the_first_and_is_new_to_a_reader(store):
    store.add("j", "bank", 9)
    for step in range(1, 6):
        store.add_event("j", evaluation(step))
    seen = store.events("j", 0, 100)[-1].cursor
    store.add_event("j", evaluation(4, loss=1.0))
    store.add_event("j", evaluation(6))
    assert [item.event for item in store.events("j", seen, 100)] == [
        evaluation(4, 1.0),
        evaluation(6),
    ]
    assert sorted(steps_of(store)) == [1, 2, 3, 4, 5, 6]


def test_the_final_evaluation_leaves_that_of_its_step_alone(store):
    store.add("j", "bank", 9)
    final = EvalDone(9, {}, {"a": 1.0}, final=True)
    for event in (evaluation(9), final, final):
        store.add_event("j", event)
    assert [item.event for item in store.events("j", 0, 100)] == [evaluation(9), final]


def test_events_of_no_step_are_all_kept(store):
    store.add("j", "bank", 9)
    for _ in range(3):
        store.add_event("j", Message("Reading"))
    assert len(store.events("j", 0, 100)) == 3
    assert len(store.events("j", 0, 2)) == 2


def test_jobs_do_not_see_each_others_events_and_take_theirs_with_them(store):
    for job in ("j", "k"):
        store.add(job, "bank", 9)
        store.add_event(job, evaluation(1))
    store.remove("j")
    assert store.events("j", 0, 100) == []
    assert steps_of(store, "k") == [1]
    store.add("j", "bank", 9)
    store.add_event("j", evaluation(1))
    assert store.events("j", 0, 9)[0].cursor > store.events("k", 0, 9)[0].cursor


def test_the_progress_is_that_of_the_last_step(store):
    store.add("j", "bank", 9)
    event = StepDone(3, 9, 1.0, 1.0, 1.0, 0.0, 0.0, 1e-3, 1.0, {"a": 1.0}, (), 10.0, 1.0)
    store.add_event("j", event)
    job = store.job("j")
    assert (job.step, job.steps) == (3, 9)
    assert store.events("j", 0, 1)[0].event == event


def test_who_resumes_goes_to_the_end_of_the_queue(store):
    for job in ("a", "b", "c"):
        store.add(job, "bank", 9)
    store.finish("a", JobState.INTERRUPTED, "gone")
    assert store.queue() == ["b", "c"]
    store.requeue("a")
    assert store.queue() == ["b", "c", "a"]
    assert store.job("a").reason is None


def test_a_state_survives_in_another_process(store):
    store.add("j", "bank", 9)
    store.request_stop("j")
    other = JobStore(store.home)
    assert other.stop_requested("j")
    assert other.job("j").state is JobState.QUEUED
    assert other.stop_requested("no-such-job"), "a job whose row is gone has to stop"


def test_an_event_of_another_version_is_passed_over(store):
    store.add("j", "bank", 9)
    with sqlite3.connect(store.path) as db:
        db.execute("INSERT INTO events (job, kind, step, time, body) VALUES "
                   "('j', 'Moved', 1, '', '{\"kind\": \"Moved\"}'), ('j', 'EvalDone', 2, '', '{')")  # fmt: skip
    db.close()
    store.add_event("j", evaluation(3))
    assert steps_of(store) == [3]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"no database" * 1000), "is damaged"),
        (lambda path: flip_pages(path), "is damaged"),
        (lambda path: set_version(path, 99), "use the newer Studio"),
        (lambda path: set_version(path, 0), "is no store of jobs"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be written"),
    ],
    ids=["no database", "flipped pages", "newer", "foreign", "folder"],
)
def test_a_file_that_is_no_sound_store_is_refused_in_one_sentence(store, damage, message):
    for number in range(200):
        store.add(f"j{number}", "bank", 9)
    store.close()
    damage(store.path)
    with pytest.raises(StorageError, match=message) as refused:
        JobStore(store.home).jobs()
    assert str(store.path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_home_that_cannot_be_made_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="set LMOE_HOME to a folder that can"):
        JobStore(tmp_path / "file" / "home").jobs()


def test_a_failed_write_leaves_the_store_usable(store):
    store.add("j", "bank", 9)
    with pytest.raises(StorageError, match="UNIQUE"):
        store.add("j", "bank", 9)
    store.add("k", "bank", 9)
    assert [job.id for job in store.jobs()] == ["k", "j"]


def flip_pages(path):
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(byte ^ 0xFF for byte in content[4096:])
    path.write_bytes(content)


def set_version(path, version):
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {version}")
    db.close()


def test_a_job_told_to_stop_after_its_end_goes_on_when_it_is_resumed(store):
    store.add("j", "bank", 10)
    store.begin("j")
    store.finish("j", JobState.DONE)
    store.request_stop("j")  # it came too late
    store.requeue("j")
    assert not store.stop_requested("j")
