"""JobWatch: how jobs go, from their events. One for all visitors; each look fetches what is new."""

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from lmoe_studio.errors import LMoEError
from lmoe_studio.jobs.job import Job, JobEvent
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.training.events import (
    CheckpointRefused,
    CheckpointSaved,
    DataReady,
    EvalDone,
    Message,
    Resumed,
    SkillReport,
    StepDone,
)
from lmoe_studio.ui.training.lines import Line

_FRESH_SECONDS = 0.4
"""A look within this time after another sees the same: a hundred pages cost no more than one."""
_MOST_EVENTS = 5_000
"""At one look; what a long run told of is caught up with over several."""
_MOST_KEPT = 12


@dataclass
class Progress:
    """What a job has told of so far."""

    cursor: int = 0
    heard: str = ""
    """When the newest event was kept."""
    message: str = ""
    is_stepping: bool = False
    """Whether the newest of message and step is a step."""
    data: tuple[SkillReport, ...] = ()
    step: StepDone | None = None
    saved: int | None = None
    """Step of the newest checkpoint."""
    refused: str | None = None
    """Why a checkpoint was put aside."""
    evaluation: EvalDone | None = None
    """The newest one; at the end, that of the bank as it is written."""
    base: EvalDone | None = None
    """The first one of all."""
    loss: Line = field(default_factory=Line)
    held_out: dict[str, Line] = field(default_factory=dict)
    shares: dict[str, Line] = field(default_factory=dict)

    @property
    def experts(self) -> list[str]:
        """Names of the job's experts in order, as far as it has told of them."""
        shares = self.step.shares if self.step else {}
        measured = self.evaluation.bank if self.evaluation else {}
        return list(dict.fromkeys((*shares, *(report.name for report in self.data), *measured)))

    def hear(self, item: JobEvent) -> None:
        """Take in one event."""
        self.cursor, self.heard = item.cursor, item.time
        match item.event:
            case Message(text):
                self.message, self.is_stepping = text, False
            case DataReady(skills):
                self.data = skills
            case StepDone() as step:
                self.step, self.is_stepping = step, True
                self.loss.add(step.step, step.language_loss)
                for name, share in step.shares.items():
                    self.shares.setdefault(name, Line()).add(step.step, share)
            case EvalDone() as evaluation:
                self.evaluation = evaluation
                self.base = self.base or evaluation
                if not evaluation.final:  # over more texts than those before it
                    for name, loss in evaluation.bank.items():
                        self.held_out.setdefault(name, Line()).add(evaluation.step, loss)
            case CheckpointSaved(step) | Resumed(step):
                self.saved = step
            case CheckpointRefused(_, reason):
                self.refused = reason
            case _:
                pass


class JobWatch:
    """The jobs of one home folder, as pages look at them."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self._lock = Lock()
        self._list: Sequence[Job] = ()
        self._listed = 0.0
        self._progress: OrderedDict[str, Progress] = OrderedDict()
        self._stopping: set[str] = set()

    def list(self, *, fresh: bool = False) -> Sequence[Job]:
        """All jobs, the newest first. Raises StorageError where they cannot be read."""
        with self._lock:
            if fresh or time.monotonic() - self._listed > _FRESH_SECONDS:
                self._list = self.jobs.list()
                self._listed = time.monotonic()
                self._stopping &= {job.id for job in self._list if job.is_live}
            return self._list

    @contextmanager
    def progress(self, job: str) -> Iterator[Progress]:
        """How a job goes, which stays as it is meanwhile. Raises LMoEError if it cannot be read."""
        with self._lock:
            progress = self._progress.pop(job, None) or Progress()
            for item in self.jobs.events(job, after=progress.cursor, limit=_MOST_EVENTS):
                progress.hear(item)
            self._progress[job] = progress
            while len(self._progress) > _MOST_KEPT:
                self._progress.popitem(last=False)
            yield progress

    def log(self, job: str, lines: int) -> Sequence[str]:
        """The last lines of a job's log; none where there is no such job any more."""
        try:
            return self.jobs.log_tail(job, lines)
        except LMoEError:
            return ()

    def stop(self, job: str) -> None:
        """Ask a job to stop and save. Raises JobError where it does not live."""
        self.jobs.cancel(job)
        self._stopping.add(job)

    def is_stopping(self, job: str) -> bool:
        """Whether a job was asked to stop here and has not done so yet."""
        return job in self._stopping
