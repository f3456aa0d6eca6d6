"""Jobs that wait for their turn: real processes, which need no torch before it comes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from job_processes import kill, run_python, until, zombies

from lmoe_studio.errors import ConfigError, DataError, JobError, StorageError
from lmoe_studio.experts.places import own_banks
from lmoe_studio.jobs.job import JobState
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.jobs.worker import outcome
from lmoe_studio.locks import is_locked
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.events import Finished

STARTER = """
import sys, time
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.events import Finished
config = TrainingConfig.read(sys.argv[2])
print(Jobs(sys.argv[1]).start(config.model_copy(update={"name": sys.argv[3]})).id, flush=True)
time.sleep(600)
"""


def named(config, name):
    return config.model_copy(update={"name": name})


def waiting(jobs, config, name="waiting"):
    """Start a job and wait until its process waits for its turn."""
    job = jobs.start(named(config, name))
    return until(lambda: (found := jobs.get(job.id)).pid and found)


pytestmark = pytest.mark.usefixtures("busy")


def test_a_job_that_waits_is_queued_and_its_folder_says_what_it_is(jobs, config, home):
    job = waiting(jobs, config)
    assert job.state is JobState.QUEUED
    assert (job.name, job.step, job.steps) == ("waiting", 0, 20)
    kept = TrainingConfig.read(job.folder / "config.json")
    assert kept.out == home / "banks" / "waiting"
    assert kept.skills == config.skills
    assert job.to_dict()["state"] == "queued"
    json.dumps(job.to_dict())
    until(lambda: "Waiting for its turn" in "\n".join(jobs.log_tail(job.id)))


def test_a_process_that_waits_has_not_imported_torch(jobs, config):
    job = waiting(jobs, config)
    assert "libtorch" not in Path(f"/proc/{job.pid}/maps").read_text()


def test_a_second_process_for_the_same_job_is_refused(jobs, config):
    job = waiting(jobs, config)
    command = [sys.executable, "-m", "lmoe_studio.jobs.worker", str(job.folder)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert second.stderr == f"Job {job.id} has a process already.\n"
    assert jobs.get(job.id) == job


def test_a_process_for_a_job_that_ended_does_nothing(jobs, config):
    job = waiting(jobs, config)
    jobs.cancel(job.id)
    until(lambda: not is_locked(job.folder / "lock"))
    command = [sys.executable, "-m", "lmoe_studio.jobs.worker", str(job.folder)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "is cancelled, so there is no work" in second.stdout
    assert jobs.get(job.id).state is JobState.CANCELLED


def test_a_killed_process_is_seen_at_once_and_a_waiting_one_is_started_again(jobs, config):
    job = waiting(jobs, config)
    kill(job.pid)
    until(lambda: not is_locked(job.folder / "lock"))
    gone = jobs.get(job.id)
    assert gone.state is JobState.INTERRUPTED
    assert "resume it" in gone.reason
    [adopted] = jobs.adopt()
    assert (adopted.id, adopted.state) == (job.id, JobState.QUEUED)
    until(lambda: jobs.get(job.id).pid not in (None, job.pid))


def test_a_running_job_whose_process_is_gone_is_noted_as_interrupted(jobs, config):
    job = waiting(jobs, config)
    kill(job.pid)
    until(lambda: not is_locked(job.folder / "lock"))
    jobs._store.begin(job.id)
    assert jobs.get(job.id).state is JobState.INTERRUPTED
    assert jobs.adopt() == []
    assert jobs._store.job(job.id).state is JobState.INTERRUPTED
    assert jobs.resume(job.id).state is JobState.QUEUED


def test_the_job_lives_on_when_the_app_that_started_it_is_killed(jobs, config, home, tmp_path):
    app = run_python(STARTER, home, tmp_path / "config.yaml", "orphan")
    id = app.stdout.readline().strip()
    job = until(lambda: (found := jobs.get(id)).pid and found)
    kill(app.pid)
    app.communicate()
    later = Jobs(home)
    assert [found.id for found in later.adopt()] == [id]
    assert later.get(id) == job
    os.kill(job.pid, 0)
    later.cancel(id)
    until(lambda: later.get(id).state is JobState.CANCELLED)


def test_many_starts_at_once_get_ids_and_places_of_their_own(jobs, config, home, tmp_path):
    starters = [run_python(STARTER, home, tmp_path / "config.yaml", f"n{n}") for n in range(3)]
    ids = [starter.stdout.readline().strip() for starter in starters]
    assert len(set(ids)) == 3
    until(lambda: all(job.pid for job in jobs.list()))
    assert sorted(jobs._store.queue()) == sorted(ids)
    for starter in starters:
        kill(starter.pid)
        starter.communicate()
    for id in ids:
        jobs.cancel(id)


def test_a_waiting_job_is_cancelled_by_request_and_by_signal_and_resumes(jobs, config):
    job = waiting(jobs, config)
    jobs.cancel(job.id)
    ended = until(lambda: (found := jobs.get(job.id)).ended and found)
    assert (ended.state, ended.reason, ended.pid) == (JobState.CANCELLED, None, None)
    until(lambda: not is_locked(job.folder / "lock"))
    assert jobs.resume(job.id).state is JobState.QUEUED
    again = until(lambda: (found := jobs.get(job.id)).pid and found)
    os.kill(again.pid, signal.SIGTERM)
    until(lambda: jobs.get(job.id).state is JobState.CANCELLED)


def test_ended_processes_leave_no_zombies(jobs, config):
    started = [waiting(jobs, config, name) for name in ("a", "b", "c")]
    for job in started[:2]:
        jobs.cancel(job.id)
    kill(started[2].pid)
    until(lambda: not any(is_locked(job.folder / "lock") for job in started))
    until(lambda: not zombies())


def test_a_job_that_lives_is_not_removed_and_one_that_ended_is(jobs, config):
    job = waiting(jobs, config)
    with pytest.raises(JobError, match=f"Job {job.id} is queued; cancel it first"):
        jobs.remove(job.id)
    with pytest.raises(JobError, match=f"Job {job.id} is queued; there is nothing to resume"):
        jobs.resume(job.id)
    jobs.cancel(job.id)
    until(lambda: not is_locked(job.folder / "lock"))
    with pytest.raises(JobError, match=f"Job {job.id} is cancelled; only a job that lives"):
        jobs.cancel(job.id)
    jobs.remove(job.id)
    assert jobs.list() == []
    assert list(job.folder.parent.iterdir()) == []


def test_a_folder_without_a_record_is_a_job_again(jobs, config, home):
    job = waiting(jobs, config)
    jobs.cancel(job.id)
    until(lambda: not is_locked(job.folder / "lock"))
    for file in home.glob("jobs.sqlite*"):
        file.unlink()
    later = Jobs(home)
    assert later.list() == []
    assert later.adopt() == []
    [found] = later.list()
    assert (found.id, found.name, found.state) == (job.id, "waiting", JobState.INTERRUPTED)
    assert "Found by its folder" in found.reason
    assert later.resume(job.id).state is JobState.QUEUED


def test_a_living_job_is_found_again_when_the_record_is_lost(jobs, config, home):
    job = waiting(jobs, config)
    for file in home.glob("jobs.sqlite*"):
        file.unlink()
    later = Jobs(home)
    assert [found.id for found in later.adopt()] == [job.id]
    kill(job.pid)


def test_a_record_without_a_folder_says_so_and_can_be_removed(jobs, config):
    job = waiting(jobs, config)
    kill(job.pid)
    until(lambda: not is_locked(job.folder / "lock"))
    shutil.rmtree(job.folder)
    assert "folder is gone" in jobs.get(job.id).reason
    assert jobs.adopt() == []
    assert jobs.get(job.id).state is JobState.FAILED
    assert jobs.log_tail(job.id) == []
    with pytest.raises(JobError, match="folder is gone"):
        jobs.resume(job.id)
    jobs.remove(job.id)
    assert jobs.list() == []


def test_what_a_start_or_a_removal_left_is_swept_and_nothing_else(jobs, home):
    for name in (".trash-abc-1", "abcde", "mine", "broken"):
        (home / "jobs" / name).mkdir(parents=True)
    (home / "jobs" / "abcde" / "lock").touch()
    (home / "jobs" / "broken" / "config.json").write_text("{")
    assert jobs.adopt() == []
    assert sorted(path.name for path in (home / "jobs").iterdir()) == ["broken", "mine"]
    assert jobs.list() == []


def test_who_was_killed_before_the_last_note_is_done_without_training_again(
    jobs, config, home, busy
):
    job = waiting(jobs, config)
    jobs._store.add_event(job.id, Finished(str(home / "banks" / "waiting"), 20))
    (home / "banks" / "waiting").mkdir(parents=True)
    busy.close()
    done = until(lambda: (found := jobs.get(job.id)).ended and found)
    assert (done.state, done.bank) == (JobState.DONE, home / "banks" / "waiting")
    with pytest.raises(JobError, match="is done; start a new one"):
        jobs.resume(job.id)


def test_an_id_may_be_shortened_while_it_is_clear(jobs, config):
    job = waiting(jobs, config)
    assert jobs.get(job.id[:3]).id == job.id
    jobs._store.add(job.id[:3] + "zz", "other", 5)
    with pytest.raises(JobError, match="Several jobs begin with"):
        jobs.get(job.id[:3])
    with pytest.raises(JobError, match=f"did you mean '{job.id}'"):
        jobs.get("waitin")
    for nonsense in ("", "?", "x" * 500):
        with pytest.raises(JobError, match="There is no job"):
            jobs.get(nonsense)


def test_a_name_that_is_taken_is_refused(jobs, config, home):
    with pytest.raises(ConfigError, match="'demo' is a bank of the Studio itself"):
        jobs.start(named(config, "demo"))
    waiting(jobs, config)
    with pytest.raises(ConfigError, match="is training a bank 'waiting'"):
        jobs.start(named(config, "waiting"))
    (home / "banks" / "old").mkdir(parents=True)
    with pytest.raises(ConfigError, match="there is a bank 'old' already"):
        jobs.start(named(config, "old"))
    assert len(jobs.list()) == 1
    assert own_banks() == {}


def test_missing_texts_are_named_before_anything_is_started(jobs, config):
    file = config.skills[1].held_out[0]
    file.unlink()
    with pytest.raises(DataError, match=r"digits-held\.jsonl, of skill 'digits', is not there"):
        jobs.start(config)
    assert jobs.list() == []


def test_copied_texts_do_not_change_with_the_first(jobs, config):
    same_name = config.skills[0].train * 2
    skills = (config.skills[0].model_copy(update={"train": same_name}), config.skills[1])
    job = jobs.start(config.model_copy(update={"skills": skills}), copy_data=True)
    kept = TrainingConfig.read(job.folder / "config.json")
    texts = [file.read_text() for file in same_name]
    for file in same_name:
        file.write_text("changed")
    assert [file.read_text() for file in kept.skills[0].train] == texts
    assert all(job.folder in file.parents for file in kept.skills[0].train)
    jobs.cancel(job.id)


def test_relative_paths_mean_the_same_from_any_folder(jobs, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    skills = tuple(
        skill.model_copy(
            update={part: tuple(p.relative_to(tmp_path) for p in getattr(skill, part))
                    for part in ("train", "held_out")}
        ) for skill in config.skills
    )  # fmt: skip
    (tmp_path / "base").symlink_to(config.base)
    job = jobs.start(config.model_copy(update={"skills": skills, "base": "base"}))
    kept = TrainingConfig.read(job.folder / "config.json")
    assert kept.skills == config.skills
    assert kept.base == str(tmp_path / "base")
    jobs.cancel(job.id)


def test_a_home_that_cannot_be_written_is_one_sentence(config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="set LMOE_HOME to a folder that can"):
        Jobs(tmp_path / "file").start(config)


def test_a_long_log_is_read_from_its_end(jobs, config):
    job = waiting(jobs, config)
    with (job.folder / "log.txt").open("ab") as log:
        log.write(b"\xff" * 2_000_000 + b"\n" + b"line\n" * 300)
    assert list(jobs.log_tail(job.id, 200)) == ["line"] * 200
    assert jobs.log_tail(job.id, 0) == []


def test_what_goes_wrong_becomes_a_state_and_a_sentence(capsys):
    def fail(error):
        def train():
            raise error

        return train

    assert outcome(lambda: None) == (JobState.DONE, None)
    assert outcome(fail(StorageError("disk full."))) == (JobState.INTERRUPTED, "disk full.")
    assert outcome(fail(DataError("no text."))) == (JobState.FAILED, "no text.")
    state, reason = outcome(fail(OSError(28, "No space left on device")))
    assert (state, reason) == (
        JobState.INTERRUPTED, "No space left on device; make room, and resume the job.",
    )  # fmt: skip
    state, reason = outcome(fail(ZeroDivisionError("division\nby zero")))
    assert state is JobState.FAILED
    assert reason == (
        "Something unexpected went wrong (ZeroDivisionError: division); the log says where."
    )
    assert "Traceback" in capsys.readouterr().err


def test_the_first_in_line_gets_the_turn_and_the_dead_lose_theirs(jobs, config, busy):
    """Without its config, a job whose turn comes fails before it needs torch's seconds."""
    first, second, third = (waiting(jobs, config, name) for name in ("a", "b", "c"))
    for job in (first, second, third):
        (job.folder / "config.json").unlink()
    kill(second.pid)
    assert not any(jobs.get(job.id).started for job in (first, second, third))
    busy.close()
    until(lambda: jobs.get(third.id).state is JobState.FAILED)
    assert jobs.get(first.id).state is JobState.FAILED
    assert jobs.get(first.id).started <= jobs.get(third.id).started
    assert jobs.get(second.id).started is None
    assert "config.json cannot be read" in jobs.get(first.id).reason
