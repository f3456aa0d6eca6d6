"""Results kept on the server for the pages that asked for them; a page holds only an id."""

from collections import OrderedDict
from secrets import token_urlsafe
from threading import Lock
from typing import Generic, TypeVar

_Result = TypeVar("_Result")


class ResultStore(Generic[_Result]):
    """The newest results, by (user, id): an id that leaks opens nothing for someone else."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._results: OrderedDict[tuple[str, str], _Result] = OrderedDict()
        self._lock = Lock()

    def put(self, user: str, result: _Result) -> str:
        """Keep a result; the answer is its id."""
        key = token_urlsafe(16)
        with self._lock:
            self._results[user, key] = result
            while len(self._results) > self._most:
                self._results.popitem(last=False)
        return key

    def get(self, user: str, key: object) -> _Result | None:
        """A result of this user, or None where it is gone, never was, or is someone else's."""
        with self._lock:
            return self._results.get((user, key)) if isinstance(key, str) else None
