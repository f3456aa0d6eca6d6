"""Job: what is known of a training run in the background, as plain values."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from lmoe_studio.training.events import Event


class JobState(StrEnum):
    """queued → running → done, failed, cancelled or interrupted; the last three can be resumed."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """It cannot go on as it is; the reason says what to put right."""
    CANCELLED = "cancelled"
    """It was told to stop, and saved."""
    INTERRUPTED = "interrupted"
    """Its process is gone, or the disk was full."""

    @property
    def is_live(self) -> bool:
        """Whether a process takes care of it."""
        return self in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class Job:
    """A job as it stood when it was asked for. Times are UTC in ISO format."""

    id: str
    name: str
    """Of the bank that it makes."""
    state: JobState
    folder: Path
    created: str
    steps: int
    step: int = 0
    """The last finished optimiser step that it told of."""
    started: str | None = None
    """When its turn came, the last time it was started or resumed."""
    ended: str | None = None
    reason: str | None = None
    """Why it failed or was interrupted, in one sentence."""
    bank: Path | None = None
    """Folder of the finished bank."""
    pid: int | None = None
    """Of its process; for people, not to tell whether it lives."""

    @property
    def is_live(self) -> bool:
        return self.state.is_live

    @property
    def can_resume(self) -> bool:
        return not self.is_live and self.state is not JobState.DONE

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        paths = {"folder": str(self.folder), "bank": str(self.bank) if self.bank else None}
        return {**asdict(self), "state": self.state.value, **paths}


@dataclass(frozen=True)
class JobEvent:
    """One event of a job, as it was kept."""

    cursor: int
    """Grows with every event kept; a step that a resumed run does again gets a new one."""
    time: str
    """When it was kept, UTC."""
    event: Event


def now() -> str:
    """The time as jobs note it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
