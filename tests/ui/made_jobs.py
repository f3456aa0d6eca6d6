"""Jobs in every state, written into a home folder by hand: what a page shows of them needs no training."""

import json
import math
import random
from contextlib import ExitStack, contextmanager

from lmoe_studio.jobs.folder import config_file, lock_file, log_file
from lmoe_studio.jobs.job import JobState
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.jobs.store import JobStore
from lmoe_studio.locks import FileLock
from lmoe_studio.training.events import (
    CheckpointSaved,
    DataReady,
    EvalDone,
    Finished,
    GroupHealth,
    Message,
    SkillReport,
    StepDone,
)

EXPERTS = ("sql", "french")


def step_done(step, steps, experts=EXPERTS, *, health="good", noise=0.05, seed=0):
    draw = random.Random(f"{seed}-{step}")
    loss = 1.6 + 1.4 * math.exp(-3 * step / steps) + draw.gauss(0, noise)
    raw = [1 + 0.4 * math.sin(step / 9 + 2 * place) for place in range(len(experts))]
    shares = {name: value / sum(raw) for name, value in zip(experts, raw, strict=True)}
    top = max(shares, key=lambda name: shares[name])
    groups = tuple(
        GroupHealth(
            layers, top, 0.97 if mark == "collapsed" else 0.6, 0.2 if mark == "collapsed" else 0.9,
            experts[1:] if mark == "collapsed" else (), mark,
        )
        for layers, mark in (("0-9", "good"), ("10-19", health), ("20-29", "good"))
    )  # fmt: skip
    return StepDone(
        step, steps, loss + 0.2, loss, 1.02, 0.1, 0.4, 1e-3, 0.7, shares, groups, 812.0,
        1.3 * (steps - step),
    )  # fmt: skip


def evaluated(step, steps, experts=EXPERTS, *, final=False):
    base = {name: 2.9 + 0.3 * place for place, name in enumerate(experts)}
    fall = 0.9 * (1 - math.exp(-3 * step / steps))
    return EvalDone(step, base, {name: loss - fall for name, loss in base.items()}, final)


class MadeJobs:
    """Writes jobs down; a living one holds its lock until the end."""

    def __init__(self, home, locks):
        self.home = home
        self.store = JobStore(home)
        self._locks = locks

    def add(
        self, id, name="my-bank", state=JobState.RUNNING, *, step=0, steps=120, experts=EXPERTS,
        reason=None, health="good", log=("12:00:00 Reading and tokenising the texts",),
        dropped=None, every=10,
    ):  # fmt: skip
        folder = self.store.folder(id)
        folder.mkdir(parents=True)
        config_file(folder).write_text(json.dumps({"name": name}))
        log_file(folder).write_text("".join(f"{line}\n" for line in log), encoding="utf-8")
        self.store.add(id, name, steps)
        if state is not JobState.QUEUED:
            self.store.begin(id)
            self.tell(id, Message("Reading and tokenising the texts"))
        if step:
            reports = [SkillReport(n, 420, 21, 96, 24_000, dropped or {}) for n in experts]
            self.tell(id, DataReady(tuple(reports)))
            self.tell(id, evaluated(0, steps, experts))
            self.steps(id, 1, step, steps, experts, health=health, every=every)
        if state is JobState.DONE:
            self.tell(id, evaluated(step, steps, experts, final=True))
            self.tell(id, Finished(str(self.home / "banks" / name), step))
        if state.is_live:
            self._hold(id)
        else:
            self.store.finish(id, state, reason)
        return id

    def again(self, id):
        """The turn of a job that ended comes once more."""
        self.store.requeue(id)
        self._hold(id)
        self.store.begin(id)

    def _hold(self, id):
        lock = FileLock.take(lock_file(self.store.folder(id)))
        assert lock is not None
        self._locks.enter_context(lock)

    def tell(self, id, event):
        self.store.add_event(id, event)

    def steps(self, id, first, last, steps=120, experts=EXPERTS, *, health="good", every=10):
        for step in range(first, last + 1):
            self.tell(id, step_done(step, steps, experts, health=health))
            if step % every == 0:
                self.tell(id, evaluated(step, steps, experts))
                self.tell(id, CheckpointSaved(step, f"run/checkpoints/checkpoint-{step}"))

    def end(self, id, state, reason=None):
        self.store.finish(id, state, reason)

    @property
    def jobs(self):
        return Jobs(self.home)


@contextmanager
def made_jobs(home):
    with ExitStack() as locks:
        made = MadeJobs(home, locks)
        yield made
        made.store.close()
