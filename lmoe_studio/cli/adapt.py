"""`lmoe adapt`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from lmoe_studio.cli.console import progress_bar, say, table_console, waiting
from lmoe_studio.cli.destination import require_new_folder
from lmoe_studio.cli.options import Base, Device

if TYPE_CHECKING:
    from lmoe_studio.studio import Studio
    from lmoe_studio.training.adapt import Adapted, AdaptStep

commands = typer.Typer()


@commands.command("adapt", epilog="Example: `lmoe adapt demo --data texts.txt --out adapted`")
def _adapt(
    data: Annotated[
        str,
        typer.Option(
            help="Some pages of text: .jsonl, .csv, .parquet, .txt with a text a line, or a dataset."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the new bank to.")],
    bank: Annotated[str, typer.Argument(help="A bank's name, or its folder.")] = "demo",
    objective: Annotated[
        str,
        typer.Option(help="What is to fall: entropy, of what comes next, or language, its loss."),
    ] = "entropy",
    steps: Annotated[int, typer.Option(help="Of Adam; the best one is kept.")] = 20,
    learning_rate: Annotated[float, typer.Option()] = 1e-3,
    held_out: Annotated[
        float,
        typer.Option(help="Share of each text, its end, that is measured and not learned from."),
    ] = 0.5,
    text_column: Annotated[
        str, typer.Option(help="Column of --data that holds the texts.")
    ] = "text",
    base: Base = None,
    device: Device = "auto",
) -> None:
    """Fit a bank's router to some texts, without labels, into a new bank; the old one stays."""
    from lmoe_studio.cli.corpus import said_corpus
    from lmoe_studio.experts.files import save_bank
    from lmoe_studio.studio import Studio
    from lmoe_studio.training.adapt import AdaptOptions

    asked = AdaptOptions.parse(
        {"objective": objective, "steps": steps, "learning_rate": learning_rate, "held_out": held_out},
        source="Adaptation",
    )  # fmt: skip
    require_new_folder(out)
    with said_corpus(data, text_column, None) as file:
        with waiting() as tell:
            studio = Studio.load(bank, base=base, device=device, on_progress=tell)
        found = _adapted(studio, file, text_column, asked.model_dump())
    training = (studio.bank.training or {}) | {"adaptation": found.report}
    save_bank(replace(studio.bank, name=out.name, training=training), out)
    _print(found)
    kept = f"step {found.steps} of {len(found.frame) - 1} is kept"
    if not found.steps:
        kept = "no step made the held-out part likelier, and the routers stay as they were"
    say(f"Wrote {out}: {kept}.")


def _adapted(studio: "Studio", file: Path, text_column: str, options: dict[str, Any]) -> "Adapted":
    with progress_bar() as bar:
        task = bar.add_task("Adapting", total=options["steps"], line="")

        def show(step: "AdaptStep") -> None:
            line = f"loss {step.held_out_loss:.3f}  entropy {step.held_out_entropy:.3f}"
            bar.update(task, completed=step.step, line=line)

        return studio.adapt(file, text_column=text_column, on_step=show, **options)


def _print(found: "Adapted") -> None:
    table = Table("held out, nats a token", "before", "after")
    for name in ("loss", "entropy"):
        values = (getattr(one, f"held_out_{name}") for one in (found.before, found.after))
        table.add_row(name, *(f"{value:.3f}" for value in values))
    table_console().print(table)
