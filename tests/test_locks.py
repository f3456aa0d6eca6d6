"""Locks tell the living from the dead, and pass from one process to the next without a gap."""

import os
import subprocess
import sys
import threading

from job_processes import kill, run_python, until

from lmoe_studio.locks import FileLock, is_locked

HOLDER = """
import sys, time
from pathlib import Path
from lmoe_studio.locks import FileLock
lock = FileLock.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_killed_holder_holds_nothing(tmp_path):
    path = tmp_path / "lock"
    holder = run_python(HOLDER, path)
    assert holder.stdout.readline() == "held\n"
    assert is_locked(path)
    assert FileLock.take(path, patience=0.05) is None
    kill(holder.pid)
    holder.communicate()
    assert not is_locked(path)
    with FileLock.take(path):
        assert is_locked(path)
    assert not is_locked(path)


def test_a_lock_is_handed_to_a_process_that_outlives_the_first(tmp_path):
    path = tmp_path / "lock"
    lock = FileLock.take(path)
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=[lock.descriptor],
    )
    lock.release()
    assert is_locked(path)
    child.communicate()
    assert not is_locked(path)


def test_a_process_that_is_started_besides_inherits_nothing(tmp_path):
    lock = FileLock.inherited(FileLock.take(tmp_path / "lock").descriptor)
    assert not os.get_inheritable(lock.descriptor)
    lock.release()


def test_whoever_only_looks_is_in_nobodys_way(tmp_path):
    path = tmp_path / "lock"
    FileLock.take(path).release()
    stop = threading.Event()

    def look():
        while not stop.is_set():
            is_locked(path)

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for looker in lookers:
        looker.start()
    for _ in range(200):
        lock = FileLock.take(path)
        assert lock is not None
        lock.release()
    stop.set()
    for looker in lookers:
        looker.join()
    until(lambda: not is_locked(path))


def test_a_file_that_is_not_there_is_not_locked(tmp_path):
    assert not is_locked(tmp_path / "lock")
    assert not (tmp_path / "lock").exists()
