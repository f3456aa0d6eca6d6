"""PasswordCheck: one password for everyone, compared in constant time, slow to guess."""

import hmac
import time
from threading import Lock

_FREE_TRIES = 5
_LONGEST_WAIT = 30.0


class PasswordCheck:
    """Says whether a login is right; after five wrong ones each further one costs a pause.

    During a pause every login is refused, also a right one: who tries is not known yet.
    """

    def __init__(self, password: str) -> None:
        self._password = password.encode()
        self._lock = Lock()
        self._failures = 0
        self._closed_until = 0.0

    def __call__(self, user: str, password: str) -> bool:
        with self._lock:
            now = time.monotonic()
            if now < self._closed_until:
                return False
            # "surrogatepass": a browser can send what UTF-8 cannot hold.
            given = password.encode("utf-8", "surrogatepass")
            if user.strip() and hmac.compare_digest(given, self._password):
                self._failures = 0
                return True
            self._failures += 1
            excess = self._failures - _FREE_TRIES
            if excess >= 0:
                self._closed_until = now + min(_LONGEST_WAIT, 2.0**excess)
            return False
