"""`lmoe train`."""

from pathlib import Path
from typing import Annotated

import typer

from lmoe_studio.cli.training_progress import TrainingProgress

commands = typer.Typer()


@commands.command("train", epilog="Example: `lmoe train examples/skills/demo.yaml`")
def _train(
    config: Annotated[Path, typer.Argument(help="YAML or JSON; see docs/training.md.")],
    out: Annotated[Path | None, typer.Option(help="Write the bank here instead.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Train this many steps instead.")] = None,
    seed: Annotated[int | None, typer.Option(help="Use this seed instead.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps.")] = None,
) -> None:
    """Train experts and router together, and write the bank."""
    from lmoe_studio.training.config import TrainingConfig
    from lmoe_studio.training.run import run_training

    settings = TrainingConfig.read(config)
    changes = {"out": out, "steps": steps, "seed": seed, "device": device}
    settings = settings.model_copy(update={k: v for k, v in changes.items() if v is not None})
    with TrainingProgress() as progress:
        run_training(settings, progress.show)
