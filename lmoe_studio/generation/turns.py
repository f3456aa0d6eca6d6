"""Turns: who may run the next forward pass, first come, first served."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lmoe_studio.errors import PlanError

_UNKNOWN = object()


class Turns:
    """A lock that is handed on in the order of asking.

    Taken for one forward pass and not for a whole text, so that several streams advance together.
    """

    def __init__(self) -> None:
        self._door = threading.Lock()
        self._queue: deque[threading.Lock] = deque()  # the first one has its turn
        self._calls = 0

    def __enter__(self) -> None:
        ticket = threading.Lock()
        ticket.acquire()
        with self._door:
            self._queue.append(ticket)
            if self._queue[0] is ticket:
                return
        try:
            ticket.acquire()  # released by whoever was before
        except BaseException:  # interrupted while waiting
            self._leave(ticket)
            raise

    def __exit__(self, *_: object) -> None:
        with self._door:
            ticket = self._queue[0]
        self._leave(ticket)

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call that takes several turns, and wants the same model in each."""
        with self._door:
            self._calls += 1
        try:
            yield
        finally:
            with self._door:
                self._calls -= 1

    @property
    def calls(self) -> int:
        """How many such calls are under way."""
        with self._door:
            return self._calls

    def _leave(self, ticket: threading.Lock) -> None:
        with self._door:
            was_first = self._queue[0] is ticket
            self._queue.remove(ticket)
            if was_first and self._queue:
                self._queue[0].release()


class SteadyTurns:
    """The turns of one call: refused once what it runs on is no longer what it began with.

    Args:
        turns: those of everyone.
        state: gives what the call runs on.
        from_first_turn: it began with what there is in its first turn, not with what there is now.
    """

    def __init__(
        self, turns: Turns, state: Callable[[], object], *, from_first_turn: bool = False
    ) -> None:
        self._turns = turns
        self._state = state
        self.at_first = _UNKNOWN if from_first_turn else state()

    def __enter__(self) -> None:
        self._turns.__enter__()
        if self.at_first is _UNKNOWN:
            self.at_first = self._state()
        if self._state() is not self.at_first:
            self._turns.__exit__()
            raise PlanError(
                "A blend was folded into the base model's weights, or unfolded, while this text "
                "was being read or written; begin it anew."
            )

    def __exit__(self, *_: object) -> None:
        self._turns.__exit__()
