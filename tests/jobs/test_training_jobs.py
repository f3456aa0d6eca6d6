"""Jobs that train: real processes with torch, which are killed, stopped and resumed."""

import os
import random
import signal
import time

import pytest
import torch
from job_processes import kill, run_python, until, zombies

from lmoe_studio.experts.files import load_bank
from lmoe_studio.jobs.job import JobState
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.jobs.locks import is_locked
from lmoe_studio.studio import Studio
from lmoe_studio.training.events import EvalDone, StepDone
from lmoe_studio.training.run import run_training

pytestmark = pytest.mark.slow

APP = """
import sys, time
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.training.config import TrainingConfig
print(Jobs(sys.argv[1]).start(TrainingConfig.read(sys.argv[2])).id, flush=True)
time.sleep(600)
"""


@pytest.fixture
def undisturbed(config, tmp_path):
    """Events and tensors of the same training without jobs, in this process."""
    events = []
    run_training(config.model_copy(update={"out": tmp_path / "undisturbed"}), events.append)
    return losses(events), tensors(tmp_path / "undisturbed")


def losses(events):
    """What each step and each evaluation came to, by kind and step."""
    steps = {("step", e.step): (e.loss, e.shares) for e in events if isinstance(e, StepDone)}
    evaluations = {("eval", e.step): e.bank for e in events if isinstance(e, EvalDone)}
    return steps | evaluations


def tensors(bank):
    loaded = load_bank(bank)
    factors = [f for e in loaded.experts for f in e.adapter.factors.values()]
    return [*loaded.router_state.values(), *(t for f in factors for t in (f.a, f.b))]


def told(jobs, job):
    return [item.event for item in jobs.events(job.id)]


def step_of(jobs, job, after=0):
    """The last step that was told of since a cursor; 0 where there was none."""
    steps = [
        i.event.step for i in jobs.events(job.id, after=after) if isinstance(i.event, StepDone)
    ]
    return steps[-1] if steps else 0


def cursor(jobs, job):
    events = jobs.events(job.id)
    return events[-1].cursor if events else 0


def free(jobs, job):
    until(lambda: not is_locked(job.folder / "lock"), seconds=5)


def named(config, name, **changes):
    return config.model_copy(update={"name": name, **changes})


def assert_equal_to(undisturbed, jobs, job):
    expected, weights = undisturbed
    assert losses(told(jobs, job)) == expected
    assert all(torch.equal(a, b) for a, b in zip(tensors(job.bank), weights, strict=True))


def test_two_starts_run_one_after_the_other_and_train_what_python_trains(
    jobs, config, undisturbed, home
):
    first = jobs.start(config)
    second = jobs.start(named(config, "second"))
    until(lambda: jobs.get(first.id).state is JobState.RUNNING)
    assert jobs.get(second.id).state is JobState.QUEUED
    seen = [item.event for item in jobs.watch(second.id)]
    done = [jobs.get(job.id) for job in (first, second)]
    assert [job.state for job in done] == [JobState.DONE, JobState.DONE]
    assert done[0].ended <= done[1].started
    assert [job.step for job in done] == [10, 10]
    for job in done:
        assert job.bank == home / "banks" / job.name
        assert_equal_to(undisturbed, jobs, job)
        assert not (job.folder / "run").exists()
    assert seen == told(jobs, second)
    assert "step 10/10" in "\n".join(jobs.log_tail(first.id))
    trace = Studio.load("second", device="cpu").trace("aei 019")
    assert trace.experts == ("vowels", "digits")
    until(lambda: not zombies(), seconds=5)


def test_a_job_that_was_stopped_goes_on_to_the_same_bank(jobs, config, undisturbed, tmp_path):
    """Once by request and once by signal; the app that started it is dead."""
    app = run_python(APP, jobs.home, tmp_path / "config.yaml")
    job = jobs.get(app.stdout.readline().strip())
    until(lambda: step_of(jobs, job) >= 2)
    kill(app.pid)
    app.communicate()
    assert Jobs(jobs.home).get(job.id).state is JobState.RUNNING
    jobs.cancel(job.id)
    stopped = until(lambda: (found := jobs.get(job.id)).ended and found)
    assert stopped.state is JobState.CANCELLED
    assert 2 <= stopped.step < 10
    free(jobs, job)
    before = cursor(jobs, job)
    jobs.resume(job.id)
    until(lambda: step_of(jobs, job, before) > stopped.step)
    os.kill(jobs.get(job.id).pid, signal.SIGTERM)
    until(lambda: jobs.get(job.id).ended)
    free(jobs, job)
    if jobs.get(job.id).state is JobState.CANCELLED:
        jobs.resume(job.id)
    done = until(lambda: (found := jobs.get(job.id)).state is JobState.DONE and found)
    assert_equal_to(undisturbed, jobs, done)


def test_a_job_that_failed_says_why_and_goes_on_when_that_is_put_right(jobs, config, undisturbed):
    file = config.skills[0].train[0]
    text = file.read_text()
    file.write_text('{"text": 3}\n')
    job = jobs.start(config)
    failed = until(lambda: (found := jobs.get(job.id)).ended and found)
    assert failed.state is JobState.FAILED
    assert f"{file}, line 1" in failed.reason
    assert "\n" not in failed.reason
    file.write_text(text)
    free(jobs, job)
    jobs.resume(job.id)
    done = until(lambda: (found := jobs.get(job.id)).state is JobState.DONE and found)
    assert_equal_to(undisturbed, jobs, done)


def test_twenty_kills_at_random_moments_need_no_human(jobs, config, tmp_path):
    """A job is killed again and again, at any moment and in the middle of its steps."""
    config = named(config, "killed", steps=60)
    events = []
    run_training(config.model_copy(update={"out": tmp_path / "undisturbed"}), events.append)
    undisturbed = losses(events), tensors(tmp_path / "undisturbed")
    draw = random.Random(0)
    kills, job = 0, jobs.start(config)
    while kills < 20:
        before = cursor(jobs, job)
        if kills % 2:
            until(lambda: step_of(jobs, job, before) or not jobs.get(job.id).is_live)  # noqa: B023
            moment = draw.uniform(0, 0.5)
        else:
            moment = draw.uniform(0, 12)
        time.sleep(moment)
        found = jobs.get(job.id)
        if found.state is JobState.DONE:
            assert_equal_to(undisturbed, jobs, found)
            job = jobs.start(named(config, f"killed-{kills}"))
            continue
        if found.pid is None:
            continue
        kill(found.pid)
        kills += 1
        free(jobs, job)
        assert jobs.get(job.id).state is JobState.INTERRUPTED
        jobs.resume(job.id)
    done = until(lambda: not (found := jobs.get(job.id)).is_live and found, seconds=120)
    assert done.state is JobState.DONE, done.reason
    assert_equal_to(undisturbed, jobs, done)
    until(lambda: not zombies(), seconds=5)
