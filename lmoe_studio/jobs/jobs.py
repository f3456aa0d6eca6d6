"""Jobs: start, watch and steer training in the background."""

import secrets
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from lmoe_studio.errors import ConfigError, JobError, StorageError
from lmoe_studio.experts.places import shipped_banks
from lmoe_studio.home import banks_folder, home_folder
from lmoe_studio.jobs.folder import config_file, lock_file, log_tail
from lmoe_studio.jobs.job import Job, JobEvent, JobState
from lmoe_studio.jobs.launch import start_worker
from lmoe_studio.jobs.prepare import check_files, fill, new_folder
from lmoe_studio.jobs.store import JobStore
from lmoe_studio.locks import FileLock, is_locked
from lmoe_studio.training.config import TrainingConfig

_GONE = (
    "Its process ended without a word (killed, out of memory, or the machine was restarted); "
    "resume it to go on from its last checkpoint."
)
_FOUND = "Found by its folder, without a record; resume it to go on from its last checkpoint."
_NO_FOLDER = "Its folder is gone, so it cannot go on; remove the job."


class Jobs:
    """The jobs of one home folder. Any number of these, in any process, see and steer the same jobs.

    One job trains at a time; the others wait for their turn, in the order they were started in.

        jobs = Jobs()
        job = jobs.start(TrainingConfig.read("bank.yaml"))
        for item in jobs.watch(job.id):
            print(item.event)
        studio = Studio.load(job.name)
    """

    def __init__(self, home: Path | str | None = None) -> None:
        """Open the jobs of a home folder; None takes `home_folder()`."""
        self.home = Path(home).absolute() if home is not None else home_folder()
        self._store = JobStore(self.home)

    def start(self, config: TrainingConfig, *, copy_data: bool = False) -> Job:
        """Train a bank in a process of its own.

        Args:
            config: what to train. Whatever its `out` says, the bank is written to
                `<home>/banks/<name>`, where `Studio.load(name)` finds it.
            copy_data: keep copies of the texts in the job's folder, so that the files given may
                change or go. Datasets that are given in Python are kept in any case.

        Raises:
            ConfigError: a bank or a living job has that name already.
            DataError: a file of texts is not there.
            HubError: a dataset of the hub was to be copied, and cannot be had.
            StorageError: the home folder cannot be written.
        """
        check_files(config)
        out = banks_folder(self.home) / config.name
        with self._alone():
            self._check_name(config.name)
            folder, lock = new_folder(self._store.jobs_folder)
            try:
                fill(folder, config.model_copy(update={"out": out}), copy_data=copy_data)
                self._store.add(folder.name, config.name, config.steps)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()
                raise
        return self._launch(folder, lock)

    def list(self) -> Sequence[Job]:
        """All jobs, the newest first."""
        return [self._as_it_is(job) for job in self._store.jobs()]

    def get(self, job: str) -> Job:
        """A job by its id, or by the beginning of it that no other has.

        Raises:
            JobError: there is none, or there are several.
        """
        known = {item.id: item for item in self._store.jobs()}
        matches = (
            [job] if job in known else [name for name in known if job and name.startswith(job)]
        )
        if len(matches) == 1:
            return self._as_it_is(known[matches[0]])
        if matches:
            raise JobError(
                f"Several jobs begin with '{job}': {', '.join(matches)}; write more of it."
            )
        names = {item.name: item for item in reversed(known.values())} | known
        near = [names[name] for name in get_close_matches(job, names, n=1)]
        hint = f"did you mean '{near[0].id}' ({near[0].name})?" if near else "see the list of jobs."
        raise JobError(f"There is no job '{job[:80]}'; {hint}")

    def events(self, job: str, *, after: int = 0, limit: int = 10_000) -> Sequence[JobEvent]:
        """What a job has told of, the oldest first.

        Args:
            job: its id.
            after: only what was kept after the event with this cursor: ask again with the last
                cursor for what is new. A step that a resumed run does again comes again.
            limit: at most so many; ask again for more.

        Raises:
            JobError: there is no such job.
        """
        return self._store.events(self.get(job).id, after, limit)

    def watch(self, job: str, *, after: int = 0, every: float = 0.5) -> Iterator[JobEvent]:
        """Events as they come, until the job has ended and all were told.

        Args:
            job: its id.
            after: begin after the event with this cursor.
            every: seconds between two looks.

        Raises:
            JobError: there is no such job, or it was removed meanwhile.
        """
        id = self.get(job).id
        while True:
            is_live = self.get(id).is_live  # asked first: what it told before its end is not missed
            while new := self._store.events(id, after, 1_000):
                yield from new
                after = new[-1].cursor
            if not is_live:
                return
            time.sleep(every)

    def log_tail(self, job: str, lines: int = 200) -> Sequence[str]:
        """The last lines that the job's process printed. Raises JobError: there is no such job."""
        return log_tail(self.get(job).folder, lines)

    def cancel(self, job: str) -> Job:
        """Let a job stop after the step it is at, and save; one that waits is taken off the queue.

        Raises:
            JobError: there is no such job, or it does not run.
        """
        found = self.get(job)
        if not found.is_live:
            raise JobError(
                f"Job {found.id} is {found.state}; only a job that lives can be cancelled."
            )
        self._store.request_stop(found.id)
        return self.get(found.id)

    def resume(self, job: str) -> Job:
        """Let a job go on from its last checkpoint; it takes its place at the end of the queue.

        Raises:
            JobError: there is no such job, it is done or lives, or its folder is gone.
            ConfigError: another job has made a bank of that name meanwhile.
        """
        with self._alone():
            found = self.get(job)
            if found.state is JobState.DONE:
                raise JobError(f"Job {found.id} is done; start a new one to train again.")
            if found.is_live:
                raise JobError(f"Job {found.id} is {found.state}; there is nothing to resume.")
            if not config_file(found.folder).is_file():
                raise JobError(f"Job {found.id}: {_NO_FOLDER}")
            self._check_name(found.name, of=found.id)
            lock = self._take(found)
            try:
                self._store.requeue(found.id)
            except BaseException:
                lock.release()
                raise
        return self._launch(found.folder, lock)

    def remove(self, job: str) -> None:
        """Delete a job with its checkpoints and its log; the bank that it made stays.

        Raises:
            JobError: there is no such job, or it lives.
            StorageError: its folder cannot be deleted.
        """
        found = self.get(job)
        if not found.folder.is_dir():
            self._store.remove(found.id)
            return
        with self._take(found):
            trash = self._store.jobs_folder / f".trash-{found.id}-{secrets.token_hex(4)}"
            try:
                found.folder.rename(trash)
            except OSError as error:
                raise StorageError(
                    f"{found.folder} cannot be removed: {error.strerror or error}."
                ) from None
            self._store.remove(found.id)
            shutil.rmtree(trash, ignore_errors=True)

    def adopt(self) -> Sequence[Job]:
        """Put in order what others left behind; the interface does so when it starts.

        A job whose process is gone is noted as interrupted, one that waited for its turn gets a new
        process, and a folder without a record is a job again. Living jobs are left alone.

        Returns:
            The living jobs.
        """
        with self._alone():
            known = {job.id: job for job in self._store.jobs()}
            for job in reversed(known.values()):
                if job.is_live:
                    self._adopt(job)
            for path in self._store.jobs_folder.iterdir():
                if path.is_dir() and path.name not in known:
                    self._adopt_stray(path)
        return [job for job in self.list() if job.is_live]

    def _adopt(self, job: Job) -> None:
        if not config_file(job.folder).is_file():
            self._store.finish(job.id, JobState.FAILED, _NO_FOLDER)
            return
        if is_locked(lock_file(job.folder)):
            return
        noted = self._store.job(job.id)  # it may have ended between the two looks
        if noted is not None and noted.state is JobState.RUNNING:
            self._store.finish(job.id, JobState.INTERRUPTED, _GONE)
        if noted is not None and noted.state is JobState.QUEUED:
            self._launch(job.folder, self._take(job))

    def _adopt_stray(self, folder: Path) -> None:
        """Make a folder without a record a job again; delete what a start or a removal left."""
        is_half_made = lock_file(folder).is_file() and not config_file(folder).is_file()
        if folder.name.startswith(".trash-") or is_half_made:
            shutil.rmtree(folder, ignore_errors=True)
            return
        if not config_file(folder).is_file():
            return
        try:
            config = TrainingConfig.read(config_file(folder))
        except ConfigError:
            return
        self._store.add(folder.name, config.name, config.steps)
        if not is_locked(lock_file(folder)):
            self._store.finish(folder.name, JobState.INTERRUPTED, _FOUND)

    def _as_it_is(self, job: Job) -> Job:
        """What the record says, unless no process holds the job's lock."""
        if not job.is_live or is_locked(lock_file(job.folder)):
            return job
        noted = self._store.job(job.id)  # it may have ended between the two looks
        if noted is None or not noted.is_live:
            return noted or job
        reason = _GONE if config_file(job.folder).is_file() else _NO_FOLDER
        return replace(noted, state=JobState.INTERRUPTED, reason=reason, pid=None)

    def _take(self, job: Job) -> FileLock:
        lock = FileLock.take(lock_file(job.folder))
        if lock is None:
            raise JobError(f"Job {job.id} is {self.get(job.id).state}; cancel it first.")
        return lock

    def _launch(self, folder: Path, lock: FileLock) -> Job:
        try:
            start_worker(folder, lock)
        except OSError as error:
            reason = f"Its process could not be started: {error.strerror or error}."
            self._store.finish(folder.name, JobState.INTERRUPTED, reason)
            raise JobError(f"Job {folder.name}: {reason}") from None
        return self.get(folder.name)

    @contextmanager
    def _alone(self) -> Generator[None]:
        """While no other process starts or resumes a job, so that names and places stay unique."""
        try:
            self._store.jobs_folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock.take(self.home / "starting.lock", patience=60)
        except OSError as error:
            raise StorageError(
                f"{self.home} cannot be written ({error.strerror or error}); set LMOE_HOME to a "
                "folder that can."
            ) from None
        if lock is None:
            raise JobError("Another process is starting a job in this home folder; try again.")
        with lock:
            yield

    def _check_name(self, name: str, of: str | None = None) -> None:
        """Refuse a name whose bank would take the place of another."""
        if name in shipped_banks():
            raise ConfigError(
                f"name: '{name}' is a bank of the Studio itself; choose another name (--name)."
            )
        for job in self.list():
            if job.name == name and job.is_live and job.id != of:
                raise ConfigError(
                    f"name: job {job.id} is training a bank '{name}'; choose another name."
                )
            if job.name == name and job.bank is not None and of is not None:
                raise ConfigError(f"name: job {job.id} has made a bank '{name}'; start a new job.")
        folder = banks_folder(self.home) / name
        if of is None and folder.exists():
            raise ConfigError(
                f"name: there is a bank '{name}' already ({folder}); choose another name."
            )
