"""Options that several commands take."""

from typing import Annotated

import typer

Bank = Annotated[str, typer.Option(help="A bank's name, or its folder.")]
Base = Annotated[
    str | None, typer.Option(help="Load this base model instead of the one the bank names.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
