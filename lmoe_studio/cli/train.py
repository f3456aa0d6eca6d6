"""`lmoe train`."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmoe_studio.cli.console import messages, say, waiting
from lmoe_studio.cli.options import Quantize
from lmoe_studio.cli.training_progress import TrainingProgress, print_preview
from lmoe_studio.errors import ConfigError

if TYPE_CHECKING:
    from lmoe_studio.training.config import TrainingConfig

commands = typer.Typer()


@commands.command(
    "train",
    epilog="Example: `lmoe train examples/skills/demo.yaml`. Ctrl-C saves and stops; the same command "
    "goes on. On several GPUs: `accelerate launch -m lmoe_studio train …` (docs/scaling.md).",
)
def _train(
    config: Annotated[
        Path | None, typer.Argument(help="YAML or JSON; see docs/training.md.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the bank here instead.")] = None,
    steps: Annotated[int | None, typer.Option(help="Train this many steps instead.")] = None,
    seed: Annotated[int | None, typer.Option(help="Use this seed instead.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps.")] = None,
    quantize: Quantize = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Throw away what an unfinished run left, replace a bank that is there, and begin.",
        ),
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only show what the model will see.")
    ] = False,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="Only print every option, its value and meaning."),
    ] = False,
) -> None:
    """Train experts and router together, and write the bank."""
    from lmoe_studio.training.config import TrainingConfig, annotated_yaml

    changes = {"out": out, "steps": steps, "seed": seed, "device": device, "quantize": quantize}
    changes = {name: value for name, value in changes.items() if value is not None}
    if config is None:
        if not print_config:
            raise ConfigError("Name a config file, or see `lmoe train --print-config` for one.")
        print(annotated_yaml(), end="")
        return
    settings = TrainingConfig.read(config)
    if changes:
        values = settings.model_dump(mode="json") | changes
        settings = TrainingConfig.parse(values, source="Options")
    if print_config:
        print(annotated_yaml(settings), end="")
    elif preview:
        _preview(settings)
    else:
        _run(settings, fresh=fresh)


def _run(settings: "TrainingConfig", *, fresh: bool) -> None:
    from lmoe_studio.training.run import run_training

    asked: list[int] = []

    def stop(number: int, _: object) -> None:
        if asked:  # the second time at once
            raise KeyboardInterrupt
        asked.append(number)
        messages.print("Stopping after this step, with a checkpoint; Ctrl-C again stops at once.")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with TrainingProgress() as progress:
            run_training(settings, progress.show, should_stop=lambda: bool(asked), fresh=fresh)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _preview(settings: "TrainingConfig") -> None:
    from lmoe_studio.base_models import load_tokenizer
    from lmoe_studio.training.preview import preview

    with waiting() as tell:
        tokenizer = load_tokenizer(settings.base, on_progress=tell)
        tell("Reading and tokenising the texts")
        found = preview(settings, tokenizer)
    for skill in found:
        report = skill.report
        for line in report.sources:
            say(line)
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in report.dropped.items())
        say(
            f"{report.name}: {report.texts:,} texts and {report.held_out_texts:,} held out; "
            f"{report.sequences:,} sequences, {report.tokens:,} tokens for this run"
            f"{f'; {dropped}' if dropped else ''}"
        )
    print_preview({skill.report.name: skill.sequences for skill in found})
