"""Turns: who may run the next forward pass, first come, first served."""

import threading
from collections import deque


class Turns:
    """A lock that is handed on in the order of asking.

    Taken for one forward pass and not for a whole text, so that several streams advance together.
    """

    def __init__(self) -> None:
        self._door = threading.Lock()
        self._queue: deque[threading.Lock] = deque()  # the first one has its turn

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

    def _leave(self, ticket: threading.Lock) -> None:
        with self._door:
            was_first = self._queue[0] is ticket
            self._queue.remove(ticket)
            if was_first and self._queue:
                self._queue[0].release()
