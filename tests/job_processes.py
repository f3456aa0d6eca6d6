"""Processes of background jobs, for tests: wait for them, kill them, count what is left of them."""

import os
import signal
import subprocess
import sys
import time

from patience import PATIENCE


def until(holds, seconds=2.5 * PATIENCE):
    """Wait until something holds; fails after some seconds."""
    give_up = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < give_up, "it never came to be"
        time.sleep(0.02)
    return value


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def run_python(code, *arguments):
    """A Python process of its own, in the background."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def zombies():
    """Ended children of this process that nobody has waited for."""
    done = subprocess.run(
        ["ps", "-o", "stat=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in done.stdout.split() if line.startswith("Z")]
