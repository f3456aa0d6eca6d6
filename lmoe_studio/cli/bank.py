"""`lmoe import` makes a bank of adapters; `lmoe inspect` says what is in one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmoe_studio.cli.console import say, table_console, waiting
from lmoe_studio.cli.destination import require_new_folder
from lmoe_studio.errors import AdapterError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmoe_studio.base_models import BaseModel
    from lmoe_studio.experts.bank import ExpertBank
    from lmoe_studio.routing.settings import RouterSettings

commands = typer.Typer()


@commands.command("import", epilog="Example: `lmoe import --expert sql=loras/sql --out my-bank`")
def _import(
    expert: Annotated[
        list[str], typer.Option(help="NAME=FOLDER or file of a LoRA; once for each.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the bank to.")],
    base: Annotated[
        str, typer.Option(help="The base model of the adapters.")
    ] = "smollm2-135m-instruct",
    router: Annotated[
        str,
        typer.Option(
            help="arrow (routes by the adapters' own directions), uniform, or knn (by --examples)."
        ),
    ] = "arrow",
    examples: Annotated[
        list[str] | None,
        typer.Option(help="For knn: NAME=FILE of texts that an expert is for; once for each."),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the router.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Experts a token.")] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="A layer that the adapters' part of is passed over: lm_head, experts."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first adapter that does not fit.")
    ] = False,
) -> None:
    """Make a bank of LoRA adapters, each tried against PEFT; it routes at once, untrained.

    An adapter is PEFT's folder, or one with checkpoints in it; MLX-LM's; llama.cpp's GGUF; or a lone
    .safetensors file with the scale in it, as kohya's scripts write.
    """
    from lmoe_studio.importing import import_adapters, import_router

    folders = _by_name(expert, "--expert", "sql=loras/sql")
    texts = _by_name(examples or [], "--examples", "sql=queries.txt")
    settings = import_router(router, temperature=temperature, top_k=top_k)
    if (settings.kind == "knn") != bool(texts):
        raise ConfigError(
            "A knn router is made of examples: give --router knn and --examples NAME=FILE for each "
            "expert, or neither."
        )
    require_new_folder(out)
    with waiting() as tell:
        done = import_adapters(
            folders,
            out,
            base=base,
            router=settings,
            remember=_remembering(settings, texts, folders) if texts else None,
            leave_out=leave_out or (),
            leave_out_refused=not strict,
            on_progress=tell,
        )
    assert done is not None  # nobody stops it
    for note in done.notes:
        say(f"Note: {note}.")
    if done.bank is None:
        name, reason = next(iter(done.refused.items()))
        others = f" (and {len(done.refused) - 1} others)" if len(done.refused) > 1 else ""
        raise AdapterError(f"Expert {_named(name, folders)}{others}: {reason}")
    for name, reason in done.refused.items():
        say(f"Left out: {_named(name, folders)}: {reason}")
    say(f"Wrote {out}: {len(done.bank.experts)} experts, {settings} router.")


@commands.command("inspect", epilog="Example: `lmoe inspect demo --json`")
def _inspect(
    bank: Annotated[str, typer.Argument(help="A bank's name, or its folder.")] = "demo",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    geometry: Annotated[
        bool, typer.Option("--geometry", help="Also how large and how alike the updates are.")
    ] = False,
) -> None:
    """Say what is in a bank, without loading its base model."""
    from lmoe_studio.experts.files import load_bank
    from lmoe_studio.experts.geometry import bank_geometry
    from lmoe_studio.experts.inspect import describe_bank

    loaded = load_bank(bank)
    description = describe_bank(loaded)
    if geometry:
        description["geometry"] = bank_geometry(loaded).summary()
    if as_json:
        print(json.dumps(description, indent=2, ensure_ascii=False))
    else:
        _print_bank(description)


def _remembering(
    settings: "RouterSettings", texts: dict[str, str], folders: dict[str, str]
) -> "Callable[[BaseModel, ExpertBank], ExpertBank]":
    """What gives a bank its memory; examples of an adapter that was left out are, too."""
    from lmoe_studio.training.memory import build_memory

    def remember(base: "BaseModel", bank: "ExpertBank") -> "ExpertBank":
        left_out = folders.keys() - set(bank.expert_names)
        taken = {name: place for name, place in texts.items() if name not in left_out}
        return build_memory(base, bank, taken, settings=settings)

    return remember


def _by_name(items: list[str], option: str, example: str) -> dict[str, str]:
    """What stands after an option that may come several times."""
    found = dict[str, str]()
    for item in items:
        name, equals, place = item.partition("=")
        if not (name and equals and place):
            kind = "FOLDER" if option == "--expert" else "FILE"
            raise ConfigError(f"{option} '{item}': write NAME={kind}, for example {example}.")
        if name in found:
            raise ConfigError(f"{option}: two have the name '{name}'; give each its own.")
        found[name] = place
    return found


def _named(name: str, folders: dict[str, str]) -> str:
    """An expert and its folder; those of an X-LoRA have none of their own."""
    return f"'{name}' ({folders[name]})" if name in folders else f"'{name}'"


def _print_bank(description: dict[str, Any]) -> None:
    out = table_console()
    for name in ("name", "base", "composition", "router", "parameters"):
        out.print(Text.assemble((f"{name:12}", "bold"), f" {description[name]}"))
    table = Table("expert", "rank", "norm of updates", "modules", "description")
    for item in description["experts"]:
        ranks = ", ".join(map(str, item["ranks"]))
        table.add_row(
            item["name"],
            ranks,
            f"{item['update_norm']:.2f}",
            str(item["modules"]),
            item["description"],
        )
    out.print(table)
    if "geometry" in description:
        _print_geometry(out, description["geometry"])


def _print_geometry(out: Console, geometry: dict[str, Any]) -> None:
    names = list(geometry["norm"])
    sizes = Table("expert", "norm", "effective rank", title="Size of the updates")
    likeness = Table("cosine", *names, title="Likeness of the updates")
    for name in names:
        rank = geometry["effective_rank"][name]
        sizes.add_row(name, f"{geometry['norm'][name]:.2f}", f"{rank:.2f}")
        cosines = geometry["cosine"][name]
        likeness.add_row(name, *(_number(cosines[other]) for other in names))
    out.print(sizes)
    out.print(likeness)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
