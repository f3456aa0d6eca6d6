"""Jobs that train: real processes with torch, which are killed, stopped and resumed."""

import os
import random
import signal
import time

import pytest
from job_processes import kill, run_python, until, zombies
from training_runs import losses_of, same

from lmoe_studio.experts.files import load_bank
from lmoe_studio.jobs.job import JobState
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.locks import is_locked
from lmoe_studio.studio import Studio
from lmoe_studio.training.events import EvalDone, StepDone

pytestmark = pytest.mark.slow

APP = """
import sys, time
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.training.config import TrainingConfig
print(Jobs(sys.argv[1]).start(TrainingConfig.read(sys.argv[2])).id, flush=True)
time.sleep(600)
"""


def told(jobs, job):
    return [item.event for item in jobs.events(job.id)]


def by_step(events):
    """A run that was resumed tells of some steps again, and so later."""
    return sorted(losses_of(events), key=lambda step: step["step"])


def evaluations(events):
    found = [event for event in events if isinstance(event, EvalDone)]
    return sorted(found, key=lambda event: (event.step, event.final))


def assert_equals(undisturbed, jobs, job):
    """No step is missing, doubled or different, and the weights are the same bits."""
    events, bank = undisturbed
    assert by_step(told(jobs, job)) == losses_of(events)
    assert evaluations(told(jobs, job)) == evaluations(events)
    assert same(load_bank(job.bank), bank)


def step_of(jobs, job, after=0):
    """The last step that was told of after a cursor; 0 where there was none."""
    steps = [
        i.event.step for i in jobs.events(job.id, after=after) if isinstance(i.event, StepDone)
    ]
    return steps[-1] if steps else 0


def cursor(jobs, job):
    events = jobs.events(job.id)
    return events[-1].cursor if events else 0


def named(config, name):
    return config.model_copy(update={"name": name})


def wait_for_end(jobs, job):
    """Wait until the job has ended and its process is gone."""
    until(lambda: not jobs.get(job.id).is_live and not is_locked(job.folder / "lock"))
    return jobs.get(job.id)


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
    for job in done:
        assert job.step == config.steps
        assert job.bank == home / "banks" / job.name
        assert_equals(undisturbed, jobs, job)
        assert not (job.folder / "run").exists()
    assert seen == told(jobs, second)
    assert "step 20/20" in "\n".join(jobs.log_tail(first.id))
    trace = Studio.load("second", device="cpu").trace("aei 019")
    assert trace.experts == ("vowels", "digits")
    until(lambda: not zombies())


def test_a_job_that_was_stopped_goes_on_to_the_same_bank(jobs, config, undisturbed, tmp_path):
    """Once by request and once by signal; the app that started it is dead."""
    app = run_python(APP, jobs.home, tmp_path / "config.yaml")
    job = jobs.get(app.stdout.readline().strip())
    pid = until(lambda: jobs.get(job.id).pid)
    until(lambda: step_of(jobs, job) >= 2)
    os.kill(pid, signal.SIGSTOP)  # what follows may take as long as it likes
    kill(app.pid)
    app.communicate()
    assert Jobs(jobs.home).get(job.id).state is JobState.RUNNING
    jobs.cancel(job.id)
    os.kill(pid, signal.SIGCONT)
    stopped = wait_for_end(jobs, job)
    assert stopped.state is JobState.CANCELLED
    assert 2 <= stopped.step < config.steps
    before = cursor(jobs, job)
    jobs.resume(job.id)
    until(lambda: step_of(jobs, job, before))
    os.kill(jobs.get(job.id).pid, signal.SIGTERM)
    stopped = wait_for_end(jobs, job)
    assert stopped.state is JobState.CANCELLED
    jobs.resume(job.id)
    done = wait_for_end(jobs, job)
    assert done.state is JobState.DONE
    assert_equals(undisturbed, jobs, done)


def test_a_job_that_failed_says_why_and_goes_on_when_that_is_put_right(jobs, config, undisturbed):
    file = config.skills[0].train[0]
    text = file.read_text()
    file.write_text('{"text": 3}\n')
    job = jobs.start(config)
    failed = wait_for_end(jobs, job)
    assert failed.state is JobState.FAILED
    assert f"{file}, line 1" in failed.reason
    assert "\n" not in failed.reason
    file.write_text(text)
    jobs.resume(job.id)
    done = wait_for_end(jobs, job)
    assert (done.state, done.reason) == (JobState.DONE, None)
    assert_equals(undisturbed, jobs, done)


@pytest.mark.parametrize("most", [6, pytest.param(20, marks=pytest.mark.release)])
def test_kills_at_random_moments_need_no_human(jobs, config, undisturbed, most):
    """Killed at any moment since its start, and in the middle of its steps, by turns."""
    draw = random.Random(0)
    kills, runs, job = 0, 1, jobs.start(named(config, "killed-1"))
    while kills < most:
        before = cursor(jobs, job)
        if kills % 2:
            until(lambda: step_of(jobs, job, before) or not jobs.get(job.id).is_live)  # noqa: B023
            time.sleep(draw.uniform(0, 0.5))
        else:
            time.sleep(draw.uniform(0, 6))
        found = jobs.get(job.id)
        if found.is_live and found.pid:
            kill(found.pid)
            kills += 1
            until(lambda: not is_locked(job.folder / "lock"))  # noqa: B023
            found = jobs.get(job.id)
        if found.state is JobState.INTERRUPTED:
            jobs.resume(job.id)
        elif not found.is_live:
            assert found.state is JobState.DONE, found.reason
            assert_equals(undisturbed, jobs, found)
            runs += 1
            job = jobs.start(named(config, f"killed-{runs}"))
    done = wait_for_end(jobs, job)
    assert done.state is JobState.DONE, done.reason
    assert_equals(undisturbed, jobs, done)
    until(lambda: not zombies())
