"""`lmoe export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lmoe_studio.cli.console import say, waiting
from lmoe_studio.cli.destination import require_new_folder
from lmoe_studio.cli.options import BlendFor, read_blend
from lmoe_studio.cli.text_input import read_text
from lmoe_studio.errors import ConfigError

commands = typer.Typer()


class _Form(StrEnum):
    peft = "peft"
    gguf = "gguf"
    full = "full"


@commands.command(
    "export", epilog="Example: `lmoe export demo --expert sql --format gguf --out sql.gguf`"
)
def _export(
    out: Annotated[Path, typer.Option(help="Folder to write to; for gguf the file.")],
    bank: Annotated[str, typer.Argument(help="A bank's name, or its folder.")] = "demo",
    expert: Annotated[str | None, typer.Option(help="One expert, as it is.")] = None,
    blend: Annotated[
        str | None, typer.Option(help="NAME=WEIGHT, separated by commas, taken as they are.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="Instead of them: a plan that fixes all weights.")
    ] = None,
    blend_for: BlendFor = None,
    form: Annotated[
        _Form,
        typer.Option(
            "--format",
            help="peft: a LoRA folder of one rank, for vLLM and others; gguf: a LoRA file for "
            "llama.cpp; full: the base model with it in its weights.",
        ),
    ] = _Form.peft,
    rank: Annotated[int | None, typer.Option(help="At most this; left out, exact.")] = None,
) -> None:
    """Write an expert or a blend for another engine; a router does not fit into any."""
    from lmoe_studio.experts.files import load_bank
    from lmoe_studio.exporting import export_blend
    from lmoe_studio.routing.plan import RoutingPlan

    if sum(one is not None for one in (expert, blend, plan, blend_for)) != 1:
        raise ConfigError(
            "Other engines have no router, whose weights depend on the token; give one of "
            "--expert NAME, --blend NAME=WEIGHT,…, --plan FILE and --blend-for PROMPT."
        )
    asked = expert if blend is None else read_blend(blend)
    if plan is not None:
        asked = RoutingPlan.from_json(read_text(plan), source=str(plan))
    require_new_folder(out)
    with waiting() as tell:
        studio = None
        if form is _Form.full or asked is None:
            from lmoe_studio.studio import Studio

            studio = Studio.load(bank, on_progress=tell)
            asked = studio.blend_for(blend_for or "") if asked is None else asked
        if form is _Form.full:
            assert studio is not None
            tell("Writing the model")
            whole = {asked: 1.0} if isinstance(asked, str) else asked
            made = studio.merge(whole, out, rank=rank, full=True)
        else:
            tell(f"Writing {out}")
            made = export_blend(
                studio.bank if studio else load_bank(bank),
                asked,
                out,
                form=form.value,
                rank=rank,
                config=studio and studio.base.model.config,
            )
    worst = max(made.errors.values())
    lost = f"; the largest relative error of a layer is {worst:.2g}" if worst else ""
    say(f"Wrote {out}: rank {made.rank}{lost}.")
