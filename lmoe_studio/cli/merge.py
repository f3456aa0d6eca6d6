"""`lmoe merge`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from lmoe_studio.cli.console import messages, say, waiting
from lmoe_studio.cli.destination import require_new_folder
from lmoe_studio.cli.options import Base, BlendFor, Device, read_blend
from lmoe_studio.cli.text_input import read_text
from lmoe_studio.errors import ConfigError

commands = typer.Typer()


@commands.command(
    "merge", epilog="Example: `lmoe merge demo --blend sql=.6,french=.4 --out blended`"
)
def _merge(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    bank: Annotated[str, typer.Argument(help="A bank's name, or its folder.")] = "demo",
    blend: Annotated[
        str | None,
        typer.Option(help="NAME=WEIGHT, separated by commas; the weights are taken as they are."),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="Instead of --blend: a plan that fixes all weights.")
    ] = None,
    blend_for: BlendFor = None,
    rank: Annotated[int | None, typer.Option(help="At most this; left out, exact.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Write the base model with the blend in its weights.")
    ] = False,
    base: Base = None,
    device: Device = "auto",
) -> None:
    """Make a blend an ordinary PEFT adapter, and check that it does what the blend does."""
    from lmoe_studio.routing.plan import RoutingPlan
    from lmoe_studio.studio import Studio

    if sum(one is not None for one in (blend, plan, blend_for)) != 1:
        raise ConfigError(
            "Give either --blend, for example sql=.6,french=.4, or --plan FILE, or --blend-for PROMPT."
        )
    asked = read_blend(blend) if blend is not None else None
    if plan is not None:
        asked = RoutingPlan.from_json(read_text(plan), source=str(plan))
    require_new_folder(out)
    with waiting() as tell:
        studio = Studio.load(bank, base=base, device=device, on_progress=tell)
        if asked is None:
            asked = studio.blend_for(blend_for or "")
        tell("Merging")
        result = studio.merge(asked, out, rank=rank, full=full)
    worst = max(result.errors, key=lambda name: result.errors[name])
    if result.errors[worst]:
        table = Table("module", "relative error", title="‖ΔW − merged‖ / ‖ΔW‖")
        for name, error in result.errors.items():
            table.add_row(name, f"{error:.4f}")
        messages.print(table)
    say(
        f"Wrote {out}: rank {result.rank}, largest relative error {result.errors[worst]:.2g} "
        f"({worst}). Read back, its logits differ from the live blend's by at most "
        f"{result.max_difference:.2g}."
    )
