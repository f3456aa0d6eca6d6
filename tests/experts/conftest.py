"""A watch over files from strangers."""

import importlib
import pickle
import signal
import sys

import pytest
import torch


@pytest.fixture
def nothing_is_run(tmp_path, monkeypatch):
    """No unpickling, no import, no waiting; and no canary left behind."""

    import_module = importlib.import_module

    def forbidden(*args, **kwargs):
        if args == ("lmoe_studio",):  # where the package asks for its own folder
            return import_module("lmoe_studio")
        raise BaseException(f"called with {args} {kwargs}")

    def arm():
        for module, name in [
            (torch, "load"), (pickle, "load"), (pickle, "loads"), (importlib, "import_module"),
        ]:  # fmt: skip
            monkeypatch.setattr(module, name, forbidden)
        signal.setitimer(signal.ITIMER_REAL, 2)

    def ring(*args):
        raise BaseException("took too long")

    before = signal.signal(signal.SIGALRM, ring)
    modules = set(sys.modules)
    yield arm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    assert not (tmp_path / "canary").exists()
    assert not {"antigravity", "evil"} & (set(sys.modules) - modules)
