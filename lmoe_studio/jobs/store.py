"""JobStore: the states and events of all jobs in one SQLite file, which many processes share.

A change of state is on the disk before the call returns; an event may be lost to a power cut, never
to a killed process. An event of a step takes the place of the one that was kept for that step before,
so a resumed run leaves no row twice.
"""

import json
import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from lmoe_studio.errors import StorageError
from lmoe_studio.home import banks_folder
from lmoe_studio.jobs.job import Job, JobEvent, JobState, now
from lmoe_studio.locks import FileLock
from lmoe_studio.plain_data import read_json
from lmoe_studio.training.events import EvalDone, Event, StepDone, event_from_dict, event_to_dict

SCHEMA_VERSION = 1
_TABLES = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    place INTEGER NOT NULL,            -- in the queue; the lowest comes first
    created TEXT NOT NULL,
    started TEXT,
    ended TEXT,
    step INTEGER NOT NULL DEFAULT 0,
    steps INTEGER NOT NULL,
    reason TEXT,
    pid INTEGER,
    stop INTEGER NOT NULL DEFAULT 0    -- 1 once it was asked to stop
);
CREATE TABLE events (
    cursor INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    step INTEGER,                      -- NULL for an event of no step: each one is kept
    time TEXT NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (job, kind, step)
);
CREATE INDEX events_of_job ON events (job);
"""
_PATIENCE = 30  # seconds to wait for another process's transaction, which takes milliseconds


class JobStore:
    """What is written down about jobs; whether their processes live is not known here.

    May be used by many threads and processes at once.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "jobs.sqlite"
        self._connection: sqlite3.Connection | None = None
        self._one_at_a_time = threading.Lock()

    @property
    def jobs_folder(self) -> Path:
        """Where every job has a folder."""
        return self.home / "jobs"

    def folder(self, job: str) -> Path:
        """The folder of a job."""
        return self.jobs_folder / job

    def add(self, job: str, name: str, steps: int, state: JobState = JobState.QUEUED) -> None:
        """Note a new job, last in the queue."""
        with self._write(durable=True) as db:
            db.execute(
                "INSERT INTO jobs (id, name, state, place, created, steps)"
                f" VALUES (?, ?, ?, {_LAST_PLACE}, ?, ?)",
                (job, name, state, now(), steps),
            )

    def jobs(self) -> list[Job]:
        """All jobs, the newest first, in the states that they last noted."""
        with self._read() as db:
            rows = db.execute("SELECT * FROM jobs ORDER BY created DESC, rowid DESC").fetchall()
        return [self._job(row) for row in rows]

    def job(self, job: str) -> Job | None:
        """One job, if there is a row of it."""
        with self._read() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
        return row and self._job(row)

    def queue(self) -> list[str]:
        """Ids of the queued jobs, the first in line first."""
        with self._read() as db:
            rows = db.execute(
                "SELECT id FROM jobs WHERE state = ? ORDER BY place", (JobState.QUEUED,)
            ).fetchall()
        return [row["id"] for row in rows]

    def requeue(self, job: str) -> None:
        """Put a job that ended at the end of the queue."""
        with self._write(durable=True) as db:
            db.execute(
                f"UPDATE jobs SET state = ?, place = {_LAST_PLACE}, ended = NULL, reason = NULL,"
                " stop = 0 WHERE id = ?",
                (JobState.QUEUED, job),
            )

    def wait(self, job: str, pid: int) -> None:
        """Note that a process waits for a job's turn."""
        with self._write(durable=True) as db:
            db.execute("UPDATE jobs SET pid = ? WHERE id = ?", (pid, job))

    def begin(self, job: str) -> None:
        """Note that a job's turn has come."""
        with self._write(durable=True) as db:
            db.execute(
                "UPDATE jobs SET state = ?, started = ? WHERE id = ?",
                (JobState.RUNNING, now(), job),
            )

    def finish(self, job: str, state: JobState, reason: str | None = None) -> None:
        """Note that a job has come to an end, and why."""
        with self._write(durable=True) as db:
            db.execute(
                "UPDATE jobs SET state = ?, ended = ?, reason = ?, pid = NULL, stop = 0 WHERE id = ?",
                (state, now(), reason, job),
            )

    def request_stop(self, job: str) -> None:
        """Ask a job to stop and save."""
        with self._write(durable=True) as db:
            db.execute("UPDATE jobs SET stop = 1 WHERE id = ?", (job,))

    def stop_requested(self, job: str) -> bool:
        """Whether a job was asked to stop; so also one whose row is gone."""
        with self._read() as db:
            row = db.execute("SELECT stop FROM jobs WHERE id = ?", (job,)).fetchone()
        return row is None or bool(row["stop"])

    def remove(self, job: str) -> None:
        """Forget a job and its events."""
        with self._write(durable=True) as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (job,))

    def add_event(self, job: str, event: Event) -> None:
        """Keep an event, in place of the one of its kind and step."""
        values = event_to_dict(event)
        step = values.get("step")
        with self._write(durable=False) as db:
            db.execute(
                "INSERT OR REPLACE INTO events (job, kind, step, time, body) VALUES (?, ?, ?, ?, ?)",
                (job, _kind(event), step, now(), json.dumps(values, ensure_ascii=False)),
            )
            if isinstance(event, StepDone):
                db.execute("UPDATE jobs SET step = ? WHERE id = ?", (step, job))

    def events(self, job: str, after: int, limit: int) -> list[JobEvent]:
        """Events of a job whose cursor is above `after`, the oldest first, at most `limit`."""
        with self._read() as db:
            rows = db.execute(
                "SELECT cursor, time, body FROM events WHERE job = ? AND cursor > ?"
                " ORDER BY cursor LIMIT ?",
                (job, after, limit),
            ).fetchall()
        return [
            JobEvent(row["cursor"], row["time"], event)
            for row in rows
            if (event := _event(row["body"])) is not None
        ]

    def has_event(self, job: str, kind: type[Event]) -> bool:
        """Whether an event of a kind was kept."""
        with self._read() as db:
            row = db.execute(
                "SELECT 1 FROM events WHERE job = ? AND kind = ? LIMIT 1", (job, kind.__name__)
            ).fetchone()
        return row is not None

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._one_at_a_time:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _job(self, row: sqlite3.Row) -> Job:
        state = JobState(row["state"])
        bank = banks_folder(self.home) / row["name"]
        return Job(
            id=row["id"],
            name=row["name"],
            state=state,
            folder=self.folder(row["id"]),
            created=row["created"],
            started=row["started"],
            ended=row["ended"],
            step=row["step"],
            steps=row["steps"],
            reason=row["reason"],
            bank=bank if state is JobState.DONE and bank.is_dir() else None,
            pid=row["pid"],
        )

    @contextmanager
    def _read(self) -> Generator[sqlite3.Connection]:
        with self._one_at_a_time, self._named_errors():
            yield self._open()

    @contextmanager
    def _write(self, *, durable: bool) -> Generator[sqlite3.Connection]:
        """A transaction that is written as a whole. IMMEDIATE: two writers wait, none fails."""
        with self._one_at_a_time, self._named_errors():
            db = self._open()
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self.home.mkdir(parents=True, exist_ok=True)
                lock = FileLock.take(self.home / "opening.lock", patience=_PATIENCE)
            except OSError as error:
                raise StorageError(self._not_writable(error.strerror or str(error))) from None
            if lock is None:
                raise StorageError(f"{self.path} is being opened by another process; try again.")
            with lock:  # two that make the tables, or change to WAL, would disturb each other
                self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            db.row_factory = sqlite3.Row
            version = db.execute("PRAGMA user_version").fetchone()[0]
            is_new = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version != SCHEMA_VERSION and not is_new:
                raise StorageError(self._other_version(version))
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA journal_mode = WAL")
            if is_new:
                db.executescript(
                    f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                )
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def _named_errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(self._sentence(error)) from None

    def _sentence(self, error: sqlite3.Error) -> str:
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # the rest says more than we need
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return (
                    f"{self.path} is damaged ({error}); move it elsewhere, and the jobs are found "
                    "again by their folders."
                )
            case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
                return f"{self.path} cannot be written ({error}); make room on its disk."
            case sqlite3.SQLITE_BUSY:
                return f"{self.path} is held by another program ({error}); close it and try again."
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
                return self._not_writable(str(error))
            case _:
                return f"{self.path} cannot be used ({error})."

    def _not_writable(self, why: str) -> str:
        return f"{self.path} cannot be written ({why}); set LMOE_HOME to a folder that can."

    def _other_version(self, version: int) -> str:
        if version > SCHEMA_VERSION:
            return (
                f"{self.path} is of version {version} and this Studio reads {SCHEMA_VERSION}; use "
                "the newer Studio that wrote it, or set LMOE_HOME to another folder."
            )
        return f"{self.path} is no store of jobs; move it elsewhere, or set LMOE_HOME."


_LAST_PLACE = "(SELECT coalesce(max(place), 0) + 1 FROM jobs)"


def _kind(event: Event) -> str:
    """What an event is kept as. The final evaluation is one of its own, beside that of its step."""
    is_final = isinstance(event, EvalDone) and event.final
    return f"{type(event).__name__}{' (final)' if is_final else ''}"


def _event(body: str) -> Event | None:
    """The event again; None for one that another version wrote and this one does not know."""
    try:
        return event_from_dict(read_json(body))
    except (KeyError, TypeError, ValueError):
        return None
