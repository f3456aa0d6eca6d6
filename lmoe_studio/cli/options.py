"""Options that several commands take."""

from typing import Annotated, Literal

import typer

Bank = Annotated[str, typer.Option(help="A bank's name, or its folder.")]
Base = Annotated[
    str | None, typer.Option(help="Load this base model instead of the one the bank names.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
Quantize = Annotated[
    Literal["4bit", "8bit"] | None,
    typer.Option(help="Keep the base model's linear layers in 4 or 8 bits."),
]
