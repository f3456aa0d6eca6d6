"""Ports for servers of tests: each worker has a range of its own, out of which the system gives none away.

A port that the system has named as free may be somebody's a moment later: of another worker, or of a
browser that opens a connection.
"""

import itertools
import os
import socket

_FIRST, _EACH = 18_000, 1_200  # below what the system takes for connections
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_places = itertools.cycle(range(_EACH))


def free_port() -> int:
    """One that nothing listens on and that this worker has not had for long."""
    for place in _places:
        port = _FIRST + _worker % 12 * _EACH + place
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("itertools.cycle has no end")
