"""Fixtures that every folder uses; nothing is fetched but the real base model, and that once."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import sys
from pathlib import Path

import pytest
import torch
from patience import PATIENCE
from tiny_models import make_tiny_base
from transformers import PreTrainedModel

from lmoe_studio.base_models import EMBEDDED_BASE, BaseModel, load_base
from lmoe_studio.cli import main

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CORES = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


@pytest.fixture(autouse=True)
def _threads(request):
    """One thread for tiny models, whose threads would wait for each other longer than they work.

    `LMOE_TEST_THREADS=8` tries any other number: nothing may depend on it.
    """
    usual = CORES if request.node.get_closest_marker("real") else 1
    torch.set_num_threads(int(os.environ.get("LMOE_TEST_THREADS", usual)))


@pytest.fixture
def lmoe(monkeypatch, capsys):
    """Run a command line; gives (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lmoe", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out = capsys.readouterr()
        return stopped.value.code or 0, out.out, out.err

    return run


@pytest.fixture
def tiny_base() -> PreTrainedModel:
    return make_tiny_base()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(3, 256, (2, 9), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="session")
def real_base_once() -> BaseModel:
    """The real SmolLM2, loaded once; take `real_base` to change it."""
    return load_base(EMBEDDED_BASE, device="cpu")


@pytest.fixture(scope="session")
def browser():
    """One for all: a second driver in one process does not start."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=1000 * PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()
