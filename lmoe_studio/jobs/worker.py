"""The process of one job: `python -m lmoe_studio.jobs.worker FOLDER`. Jobs starts it.

It waits for its turn, trains, and notes what becomes of it. There is no supervisor: every queued job
has such a process, which is cheap until its turn comes (torch is imported only then), so the queue
lives on when the app ends. SIGTERM and SIGINT stop and save, as a request in the store does.
"""

import argparse
import errno
import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event as Flag
from types import FrameType

from lmoe_studio.errors import LMoEError, StorageError, TrainingStopped
from lmoe_studio.jobs.folder import config_file, lock_file, run_folder, spare_file
from lmoe_studio.jobs.job import JobState
from lmoe_studio.jobs.log_lines import log_line
from lmoe_studio.jobs.store import JobStore
from lmoe_studio.locks import FileLock, is_locked
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.events import Event, Finished

_POLL = 0.2  # seconds between two looks at the queue
_NICENESS = 10  # whoever uses the Studio meanwhile goes first
_SPARE = 262_144  # bytes
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def main() -> None:
    """Work as the process of a job; exit code 0 where it is done or was told to stop."""
    faulthandler.enable()
    parser = argparse.ArgumentParser(prog="python -m lmoe_studio.jobs.worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lock", type=int, help="Descriptor of the job's lock, already held.")
    options = parser.parse_args()
    folder: Path = options.folder.absolute()
    lock = (
        FileLock.take(lock_file(folder))
        if options.lock is None
        else FileLock.inherited(options.lock)
    )
    if lock is None:
        sys.exit(f"Job {folder.name} has a process already.")
    with lock:
        sys.exit(Worker(folder).work())


class Worker:
    """Carries out one job whose lock this process holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name
        self.store = JobStore(folder.parent.parent)
        self._told_to_stop = Flag()

    def work(self) -> int:
        """Wait, train, note the outcome; gives the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)
        try:
            job = self.store.job(self.id)
            if job is None or job.state is not JobState.QUEUED:
                say(f"Job {self.id} is {job.state if job else 'unknown'}, so there is no work.")
                return 1
            self.store.wait(self.id, os.getpid())
            return self._wait_and_train()
        except LMoEError as error:  # the store fails: whoever looks sees that the lock is free
            say(str(error))
            return 1

    def should_stop(self) -> bool:
        """Whether the job was told to stop, by a signal or in the store."""
        return self._told_to_stop.is_set() or self.store.stop_requested(self.id)

    def _wait_and_train(self) -> int:
        turn = self._wait_for_turn()
        if turn is None:
            self.store.finish(self.id, JobState.CANCELLED)
            return 0
        with turn:
            self.store.begin(self.id)
            os.nice(_NICENESS)
            keep_room(self.folder)
            state, reason = outcome(self._train)
            say(reason or f"The job is {state}.")
            spare_file(self.folder).unlink(missing_ok=True)
            self.store.finish(self.id, state, reason)
        return 0 if state in (JobState.DONE, JobState.CANCELLED) else 1

    def _wait_for_turn(self) -> FileLock | None:
        """The lock that only one training holds, once this job is the first in line."""
        say("Waiting for its turn")
        while not self.should_stop():
            if self._is_first():
                turn = FileLock.take(self.store.home / "training.lock", patience=0)
                if turn is not None:
                    return turn
            time.sleep(_POLL)
        return None

    def _is_first(self) -> bool:
        """Whether no living job is before this one."""
        for job in self.store.queue():
            if job == self.id:
                return True
            if is_locked(lock_file(self.store.folder(job))):
                return False
        return False

    def _train(self) -> None:
        config = TrainingConfig.read(config_file(self.folder))
        if self.store.has_event(self.id, Finished) and config.out.is_dir():
            return  # killed when all was done but the last note
        from lmoe_studio.training.run import run_training

        run_training(
            config,
            self._keep,
            should_stop=self.should_stop,
            run_folder=run_folder(self.folder),
        )

    def _keep(self, event: Event) -> None:
        self.store.add_event(self.id, event)
        line = log_line(event)
        if line:
            say(line)

    def _hear(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._told_to_stop.set()


def outcome(train: Callable[[], None]) -> tuple[JobState, str | None]:
    """What became of a training, and why it failed or was interrupted."""
    try:
        train()
    except TrainingStopped as stopped:
        say(str(stopped))
        return JobState.CANCELLED, None
    except StorageError as error:  # most of all a full disk, which has room again some time
        return JobState.INTERRUPTED, str(error)
    except LMoEError as error:
        return JobState.FAILED, str(error)
    except Exception as error:
        with suppress(OSError):
            traceback.print_exc()
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return JobState.INTERRUPTED, f"{error.strerror}; make room, and resume the job."
        first = (str(error).strip().splitlines() or [""])[0][:200]
        return JobState.FAILED, (
            f"Something unexpected went wrong ({type(error).__name__}: {first}); the log says where."
        )
    return JobState.DONE, None


def keep_room(folder: Path) -> None:
    """Occupy some space, so that on a full disk there is room to note why the job was interrupted."""
    with suppress(OSError):
        spare_file(folder).write_bytes(os.urandom(_SPARE))


def say(line: str) -> None:
    """Write a line to the log; a log that cannot be written stops no training."""
    with suppress(OSError):
        print(f"{time.strftime('%H:%M:%S')} {line}")


if __name__ == "__main__":
    main()
