"""launch: start the interface on this machine.

The model begins to load before Gradio is imported, and the page opens before the model is there.
"""

import socket
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

from lmoe_studio.config import Quantize
from lmoe_studio.errors import ConfigError, LMoEError
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.ui.environment import settle_environment
from lmoe_studio.ui.guard import LOOPBACK_HOSTS
from lmoe_studio.ui.source import model_source


def launch(
    bank: str = "demo",
    host: str = "127.0.0.1",
    port: int = 7860,
    open_browser: bool = True,
    password: str | None = None,
    device: str = "auto",
    quantize: Quantize | None = None,
    allowed_hosts: Sequence[str] = (),
    data_folder: Path | None = None,
) -> None:
    """Serve the interface until interrupted.

    Args:
        bank: the bank to begin with; name or folder.
        host: address to listen on; beyond this machine only with a password.
        port: port to listen on; never another one in its place.
        open_browser: open the page in the default browser.
        password: asked of everyone who opens the page, with any user name.
        device: where the model runs.
        quantize: keep the base's linear layers in 4 or 8 bits.
        allowed_hosts: further names that the page is reached under, for example behind a proxy.
        data_folder: a folder whose texts everyone who opens the page may train on, and whose adapters
            may be imported.

    Raises:
        ConfigError: the address is taken, or open to others without a password, or the data folder
            is none.
    """
    check_address(host, port, password=password)
    if data_folder is not None and not data_folder.is_dir():
        raise ConfigError(f"The data folder {data_folder} is no folder; make it, or name another.")
    settle_environment(host)
    source = model_source(device, quantize)
    source.start(bank)
    from lmoe_studio.ui.serve import serve  # noqa: PLC0415  (brings Gradio: seconds)

    jobs = Jobs()
    Thread(target=_adopt, args=(jobs,), name="adopt-jobs", daemon=True).start()
    app = serve(
        source, host, port, jobs=jobs, data_folder=data_folder, password=password,
        allowed_hosts=allowed_hosts,
    )  # fmt: skip
    url = str(app.local_url)
    sys.stderr.write(f"L-MoE Studio is at {url} (Ctrl+C stops it)\n")
    if open_browser:
        webbrowser.open(url)
    app.block_thread()


def _adopt(jobs: Jobs) -> None:
    """Take up the jobs that an earlier Studio left; the page says so where they cannot be read."""
    try:
        jobs.adopt()
    except LMoEError as error:
        sys.stderr.write(f"{error}\n")


def check_address(host: str, port: int, *, password: str | None) -> None:
    """Refuse an address that cannot or must not be listened on."""
    if host not in LOOPBACK_HOSTS and not password:
        raise ConfigError(
            f"Listening on {host or 'every address'} would open the Studio to others without a "
            "password; give one with --password, or listen on 127.0.0.1."
        )
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the server will do it: a port in TIME_WAIT counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OverflowError as error:
        raise ConfigError(f"Port {port} is out of range; choose one from 1 to 65535.") from error
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host}, port {port} ({error.strerror}); stop the program that uses "
            f"it, or choose another port, for example --port {port + 1}."
        ) from error
