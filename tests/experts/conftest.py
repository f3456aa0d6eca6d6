"""A watch over files from strangers."""

import importlib
import pickle
import signal
import sys
from pathlib import Path

import pytest
import torch
from patience import PATIENCE

MOST_CALLS = 3_000_000
"""Calls and returns of functions while files are read and refused; 10,001 tensors take a fifth of it."""
MOST_BYTES = 10_000_000
"""Read from files meanwhile; 10,001 tensors take a tenth of it."""


def bytes_read():
    """By this process until now."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.fixture
def nothing_is_run(tmp_path, monkeypatch):
    """No unpickling, no import, no endless work; and no canary left behind.

    Work is counted, in calls and in bytes read: how long it takes hangs on the machine.
    """
    import_module = importlib.import_module
    calls, read_before = 0, None

    def forbidden(*args, **kwargs):
        if args == ("lmoe_studio",):  # where the package asks for its own folder
            return import_module("lmoe_studio")
        raise BaseException(f"called with {args} {kwargs}")

    def count(frame, event, argument):
        nonlocal calls
        calls += 1
        if calls > MOST_CALLS:
            raise BaseException("too much work")

    def arm():
        nonlocal read_before
        for module, name in [
            (torch, "load"), (pickle, "load"), (pickle, "loads"), (importlib, "import_module"),
        ]:  # fmt: skip
            monkeypatch.setattr(module, name, forbidden)
        read_before = bytes_read()
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        sys.setprofile(count)

    def ring(*args):
        raise BaseException("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    modules = set(sys.modules)
    yield arm
    sys.setprofile(None)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    assert read_before is None or bytes_read() - read_before < MOST_BYTES
    assert not (tmp_path / "canary").exists()
    assert not {"antigravity", "evil"} & (set(sys.modules) - modules)
