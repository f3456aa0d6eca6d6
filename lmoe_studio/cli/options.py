"""Options that several commands take."""

from typing import Annotated, Literal

import typer

from lmoe_studio.errors import ConfigError

Bank = Annotated[str, typer.Option(help="A bank's name, or its folder.")]
Base = Annotated[
    str | None, typer.Option(help="Load this base model instead of the one the bank names.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
Quantize = Annotated[
    Literal["4bit", "8bit"] | None,
    typer.Option(help="Keep the base model's linear layers in 4 or 8 bits."),
]
BlendFor = Annotated[
    str | None,
    typer.Option(
        help="Instead of them: a prompt, whose tokens the bank's router gives the weights."
    ),
]


def read_blend(given: str) -> dict[str, float]:
    """What stands after `--blend`. Raises ConfigError."""
    pairs = [_name_and_weight(item) for item in given.split(",")]
    blend = dict(pairs)
    if len(blend) < len(pairs):
        raise ConfigError(f"--blend '{given}' names an expert twice; give each one weight.")
    return blend


def _name_and_weight(item: str) -> tuple[str, float]:
    name, equals, weight = item.strip().partition("=")
    try:
        if name and equals:
            return name, float(weight)
    except ValueError:
        pass
    raise ConfigError(f"--blend '{item}': write NAME=WEIGHT, for example sql=.6,french=.4.")
