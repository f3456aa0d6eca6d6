"""`lmoe distil`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from lmoe_studio.cli.console import progress_bar, say, waiting
from lmoe_studio.cli.destination import require_new_folder
from lmoe_studio.cli.options import Base, Device

commands = typer.Typer()


@commands.command("distil", epilog="Example: `lmoe distil demo --data texts.txt --out readable`")
def _distil(
    data: Annotated[
        str,
        typer.Option(
            help="Texts to learn from: .jsonl, .csv, .parquet, .txt with a text a line, or a dataset."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the new bank to.")],
    bank: Annotated[str, typer.Argument(help="A bank's name, or its folder.")] = "demo",
    scope: Annotated[
        Literal["shared", "tied"], typer.Option(help="One route for all layers, or one for each.")
    ] = "shared",
    steps: Annotated[int, typer.Option(help="Of Adam.")] = 500,
    learning_rate: Annotated[float, typer.Option()] = 3e-3,
    text_column: Annotated[
        str, typer.Option(help="Column of --data that holds the texts.")
    ] = "text",
    base: Base = None,
    device: Device = "auto",
) -> None:
    """Make a bank's router one that knows all routes from token ids, in a new bank."""
    from lmoe_studio.cli.corpus import said_corpus
    from lmoe_studio.experts.files import save_bank
    from lmoe_studio.routing.settings import RouterSettings
    from lmoe_studio.studio import Studio
    from lmoe_studio.training.distil import DistilOptions

    options = DistilOptions.parse(
        {"steps": steps, "learning_rate": learning_rate}, source="Distillation"
    )
    require_new_folder(out)
    with said_corpus(data, text_column, None) as file:
        with waiting() as tell:
            studio = Studio.load(bank, base=base, device=device, on_progress=tell)
        with progress_bar() as bar:
            task = bar.add_task("Distilling", total=steps, line="")
            found = studio.distil(
                file,
                router=RouterSettings(kind="pre", scope=scope),
                text_column=text_column,
                on_step=lambda step, loss: bar.update(task, completed=step, line=f"KL {loss:.3f}"),
                **options.model_dump(),
            )
    save_bank(replace(found.bank, name=out.name), out)
    say(
        f"Wrote {out}: on text that it did not learn from, KL {found.before.kl:.3f} → "
        f"{found.after.kl:.3f} nats, the same first choice on {found.after.agreement:.0%} of tokens."
    )
