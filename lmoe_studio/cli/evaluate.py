"""`lmoe eval`: what texts cost under the router, without it, and under each expert alone."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.measure import Measurement
from rich.table import Table

from lmoe_studio.cli.console import progress_bar, say, table_console, waiting
from lmoe_studio.cli.options import Base, Device, Quantize
from lmoe_studio.cli.text_input import read_text

if TYPE_CHECKING:
    from lmoe_studio.causal.evaluation import CorpusLosses
    from lmoe_studio.routing.plan import RoutingPlan
    from lmoe_studio.studio import Studio
    from lmoe_studio.tracing.corpus import CorpusProgress

commands = typer.Typer()


@commands.command(
    "eval", epilog="Example: `lmoe eval demo --data texts.jsonl --label-column skill --json`"
)
def _eval(
    data: Annotated[
        str,
        typer.Option(
            help="The texts: .jsonl, .csv, .parquet, .txt with a text a line, a saved dataset, or "
            "one of the hub: hf:user/name,split=test,take=500."
        ),
    ],
    bank: Annotated[str, typer.Argument(help="A shipped bank's name, or a bank folder.")] = "demo",
    text_column: Annotated[
        str, typer.Option(help="Column of --data that holds the texts.")
    ] = "text",
    label_column: Annotated[
        str | None, typer.Option(help="Column of --data that holds their labels.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="Also compare this routing plan; docs/plans.md.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=2, help="Cut longer texts to this.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    base: Base = None,
    device: Device = "auto",
    quantize: Quantize = None,
) -> None:
    """Say what texts cost, in nats a token by label: router, uniform, base, each expert alone."""
    from lmoe_studio.cli.corpus import said_corpus
    from lmoe_studio.routing.plan import RoutingPlan
    from lmoe_studio.studio import Studio

    with said_corpus(data, text_column, label_column) as file:  # before the model
        steer = RoutingPlan.from_json(read_text(plan), source=str(plan)) if plan else None
        with waiting() as tell:
            studio = Studio.load(
                bank, base=base, device=device, quantize=quantize, on_progress=tell
            )
        found = _measured(studio, file, text_column, label_column, steer, max_tokens)
    if as_json:
        print(json.dumps(_values(found, studio.bank.name), indent=2, ensure_ascii=False))
    else:
        _print_losses(found)
    if found.hindsight and not as_json:
        say(found.hindsight)
    cut = f", {found.cut:,} of them cut" if found.cut else ""
    missing = f", {found.unlabelled:,} without a label" if label_column and found.unlabelled else ""
    say(f"{found.texts:,} texts{cut}{missing}, {found.tokens:,} tokens; nats a token.")


def _measured(
    studio: "Studio",
    file: Path,
    text_column: str,
    label_column: str | None,
    steer: "RoutingPlan | None",
    max_tokens: int | None,
) -> "CorpusLosses":
    with progress_bar() as bar:
        task = bar.add_task("Evaluating", total=1.0, line="")

        def show(progress: "CorpusProgress") -> None:
            line = f"{progress.texts:,}/{progress.of_texts:,} texts  {progress.tokens:,} tokens"
            bar.update(task, completed=progress.share, line=line)

        return studio.evaluate(
            file,
            text_column=text_column,
            label_column=label_column,
            plans={"plan": steer} if steer else None,
            max_tokens=max_tokens,
            on_progress=show,
        )


def _values(found: "CorpusLosses", bank: str) -> dict[str, Any]:
    frame = found.frame.astype(object).where(found.frame.notna(), None)
    return {
        "bank": bank,
        "texts": found.texts,
        "tokens": found.tokens,
        "cut": found.cut,
        "unlabelled": found.unlabelled,
        **({"hindsight": found.hindsight} if found.hindsight else {}),
        "losses": frame.to_dict(orient="records"),
    }


def _print_losses(found: "CorpusLosses") -> None:
    """As wide as it needs to be: a pipe has no width to keep to."""
    losses = found.table()
    table = Table("", *(str(label) for label in losses), box=SIMPLE)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for plan, row in losses.iterrows():
        table.add_row(str(plan), *(f"{loss:.3f}" for loss in row))
    tokens = found.frame.drop_duplicates("label")["tokens"]
    table.add_row("tokens", *(f"{count:,}" for count in tokens), style="dim")
    out = table_console()
    if not out.is_terminal:
        out.width = max(
            out.width, Measurement.get(out, out.options.update(width=10_000), table).maximum
        )
    out.print(table)
