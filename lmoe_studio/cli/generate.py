"""`lmoe generate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmoe_studio.cli.console import say, waiting
from lmoe_studio.cli.options import Bank, Base, Device, Quantize
from lmoe_studio.cli.text_input import given_text, read_text
from lmoe_studio.cli.trace_file import require_trace_name, write_trace

if TYPE_CHECKING:
    from lmoe_studio.generation.text import Generation
    from lmoe_studio.routing.plan import RoutingPlan

commands = typer.Typer()


@commands.command(
    "generate",
    epilog='Example: `lmoe generate --prompt "SELECT name" --plan plan.json --seed 0`',
)
def _generate(
    prompt: Annotated[
        str | None, typer.Option(help="The prompt; left out, it is read from stdin.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Read the prompt from a file.")] = None,
    plan: Annotated[
        Path | None, typer.Option(help="A routing plan as JSON; docs/plans.md.")
    ] = None,
    bank: Bank = "demo",
    base: Base = None,
    max_new_tokens: Annotated[int, typer.Option(help="The most tokens to write.")] = 64,
    temperature: Annotated[float | None, typer.Option(help="Left out: greedy decoding.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest of this sum.")
    ] = None,
    min_p: Annotated[float | None, typer.Option(help="Leave out below this × the best.")] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: repeat less.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Of the sampling.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text to end at; may be repeated.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Use the model's chat template.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the trace: .parquet, .safetensors or .csv.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON when done.")] = False,
    device: Device = "auto",
    quantize: Quantize = None,
) -> None:
    """Write a text after a prompt, under a routing plan if one is given."""
    from lmoe_studio.routing.plan import RoutingPlan
    from lmoe_studio.studio import Studio

    require_trace_name(out)
    given = given_text(prompt, file, "--prompt")
    steer = RoutingPlan.from_json(read_text(plan), source=str(plan)) if plan else None
    with waiting() as tell:
        studio = Studio.load(bank, base=base, device=device, quantize=quantize, on_progress=tell)
    pieces = studio.stream(
        given,
        plan=steer,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=tuple(stop or ()),
        chat=chat,
        trace=out is not None,
    )
    result = None
    for piece in pieces:
        result = piece.generation
        if not as_json:
            print(piece.new_text, end="", flush=True)
    assert result is not None
    print(json.dumps(_generation_values(result, steer), ensure_ascii=False) if as_json else "")
    if out is not None and result.trace is not None:
        write_trace(result.trace, out)
    say(
        f"{len(result.token_ids)} tokens, {result.tokens_per_second:.1f} a second, seed {result.seed}; "
        f"ended by {result.finish}."
    )


def _generation_values(result: "Generation", plan: "RoutingPlan | None") -> dict[str, Any]:
    return {
        "prompt": result.prompt,
        "text": result.text,
        "token_ids": list(result.token_ids),
        "finish": result.finish,
        "seed": result.seed,
        "tokens_per_second": round(result.tokens_per_second, 2),
        "plan": json.loads(plan.to_json()) if plan else None,
    }
