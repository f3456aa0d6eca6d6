"""Start the process of a job, which outlives whoever started it."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from threading import Thread

from lmoe_studio.jobs.folder import log_file
from lmoe_studio.locks import FileLock

_PACKAGE_PARENT = Path(__file__).parents[2]


def start_worker(folder: Path, lock: FileLock) -> int:
    """Start a worker in a session of its own and hand it the lock of its job; gives its pid.

    The lock is released here, so from now on it is held as long as the worker lives.

    Raises:
        OSError: no process can be started, or the log not be written.
    """
    command = [sys.executable, "-u", "-P", "-m", "lmoe_studio.jobs.worker", str(folder)]
    with lock, log_file(folder).open("ab") as log:
        process = subprocess.Popen(
            [*command, "--lock", str(lock.descriptor)],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[lock.descriptor],
            start_new_session=True,
        )
    # Waited for, so that an app that runs for weeks collects no zombies.
    Thread(target=process.wait, name=f"wait-{folder.name}", daemon=True).start()
    return process.pid


def _environment() -> dict[str, str]:
    """This process's; a checkout that is not installed is found in it as well."""
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:replace"}
    if str(_PACKAGE_PARENT) != sysconfig.get_path("purelib"):
        paths = [str(_PACKAGE_PARENT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment
