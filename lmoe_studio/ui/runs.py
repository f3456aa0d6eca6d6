"""RunBook: which runs of the model go on at the moment, so that the page can stop them."""

import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from secrets import token_urlsafe
from threading import Event, Lock
from typing import TypeVar

_Result = TypeVar("_Result")
_LOOK_SECONDS = 0.5
_PATIENCE = 90.0
"""Seconds without a sign of life: more than a browser lets a hidden tab sleep."""


class _Run:
    def __init__(self) -> None:
        self.stop = Event()
        self.seen = time.monotonic()


class RunBook:
    """Runs by (user, id): an id that leaks stops nothing of someone else's.

    A page that is offline or stuck takes no views, and Gradio would keep them all in memory. So
    pages tell now and then that they still look (`see`), and a run that nobody has looked at for
    long is forgotten.
    """

    def __init__(self, *, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._runs: dict[tuple[str, str], _Run] = {}
        self._lock = Lock()

    @contextmanager
    def running(self, user: str) -> Iterator[tuple[str, Event]]:
        """An id and a stop signal for a run; the signal is set at the end in any case."""
        key, run = token_urlsafe(16), _Run()
        with self._lock:
            self._runs[user, key] = run
        try:
            yield key, run.stop
        finally:
            run.stop.set()
            with self._lock:
                del self._runs[user, key]

    def stop(self, user: str, key: object) -> bool:
        """Ask a run of this user's to stop; False where there is none by that id."""
        run = self._find(user, key)
        if run is not None:
            run.stop.set()
        return run is not None

    def see(self, user: str, key: object) -> None:
        """Note that a page still looks at a run."""
        run = self._find(user, key)
        if run is not None:
            run.seen = time.monotonic()

    def is_forgotten(self, user: str, key: str) -> bool:
        """Whether no page has looked at a run for long."""
        run = self._find(user, key)
        return run is not None and time.monotonic() - run.seen > self._patience

    def _find(self, user: str, key: object) -> _Run | None:
        with self._lock:
            return self._runs.get((user, key)) if isinstance(key, str) else None

    def __len__(self) -> int:
        return len(self._runs)


def in_background(work: Callable[[], _Result], stop: Event) -> Generator[float, None, _Result]:
    """Run something long in a thread; yields the seconds that have passed, now and then.

    Closing the generator sets `stop` and waits for the work to heed it: a page that goes away ends
    what was done for it.
    """
    started = time.perf_counter()
    with ThreadPoolExecutor(1, thread_name_prefix="run") as pool:
        future = pool.submit(work)
        try:
            while not wait([future], _LOOK_SECONDS).done:
                yield time.perf_counter() - started
        finally:
            stop.set()
        return future.result()
