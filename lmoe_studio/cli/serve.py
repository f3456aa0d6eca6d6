"""`lmoe app`."""

from pathlib import Path
from typing import Annotated

import typer

from lmoe_studio.cli.options import Bank, Device, Quantize

commands = typer.Typer()


@commands.command("app", epilog="Example: `lmoe app --bank demo --port 7860`")
def _app(
    bank: Bank = "demo",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    password: Annotated[
        str | None, typer.Option(envvar="LMOE_PASSWORD", help="Needed beyond this machine.")
    ] = None,
    device: Device = "auto",
    quantize: Quantize = None,
    data_folder: Annotated[
        Path | None, typer.Option(help="A folder whose texts and adapters the Train tab offers.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Open the Studio in the browser."""
    from lmoe_studio.ui.app import launch

    launch(
        bank,
        host,
        port,
        open_browser=browser,
        password=password,
        device=device,
        quantize=quantize,
        data_folder=data_folder,
    )
