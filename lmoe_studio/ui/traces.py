"""Traces kept on the server for the pages that made them; a page holds only an id."""

from collections import OrderedDict
from dataclasses import fields
from secrets import token_urlsafe
from threading import Lock

import numpy as np

from lmoe_studio.tracing.records import RoutingTrace

MOST_BYTES = 512 * 2**20


class TraceStore:
    """The newest traces, by (user, id); the oldest go when room runs out.

    The user name is part of the key, so an id that leaks opens nothing for someone else.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._traces: OrderedDict[tuple[str, str], RoutingTrace] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def put(self, user: str, trace: RoutingTrace) -> str:
        """Keep a trace; the answer is its id."""
        key = token_urlsafe(16)
        with self._lock:
            self._traces[user, key] = trace
            self._bytes += _size(trace)
            while self._bytes > self._most_bytes and len(self._traces) > 1:
                self._bytes -= _size(self._traces.popitem(last=False)[1])
        return key

    def get(self, user: str, key: object) -> RoutingTrace | None:
        """A trace of this user, or None where it is gone, never was, or is someone else's."""
        if not isinstance(key, str):
            return None
        with self._lock:
            trace = self._traces.get((user, key))
            if trace is not None:
                self._traces.move_to_end((user, key))
            return trace


def _size(trace: RoutingTrace) -> int:
    values = [getattr(trace, field.name) for field in fields(trace)]
    sizes = {id(value): value.nbytes for value in values if isinstance(value, np.ndarray)}
    return sum(sizes.values())  # an array that stands for two is there once
