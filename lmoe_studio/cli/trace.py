"""`lmoe trace`: one text, or with --data many."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lmoe_studio.cli.console import progress_bar, say, table_console, waiting
from lmoe_studio.cli.destination import require_folder_place
from lmoe_studio.cli.options import Bank, Base, Device, Quantize
from lmoe_studio.cli.text_input import given_text
from lmoe_studio.cli.trace_file import require_trace_name, write_trace
from lmoe_studio.errors import ConfigError

if TYPE_CHECKING:
    from lmoe_studio.studio import Studio
    from lmoe_studio.tracing.corpus import CorpusProgress
    from lmoe_studio.tracing.records import RoutingTrace

commands = typer.Typer()


@commands.command(
    "trace",
    epilog='Example: `lmoe trace --text "SELECT 1" --out trace.parquet`, or '
    "`lmoe trace --data texts.jsonl --label-column skill --out runs/x`",
)
def _trace(
    text: Annotated[
        str | None, typer.Option(help="The text; left out, it is read from stdin.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Read the text from a file.")] = None,
    bank: Bank = "demo",
    base: Base = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help=".parquet, .safetensors or .csv; left out, a table. With --data a folder."
        ),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Cut the text to this.")] = None,
    contributions: Annotated[
        bool, typer.Option("--contributions", help="Also record how much each expert added.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="Trace many texts: .jsonl, .csv, .parquet, .txt with a text a line, a saved "
            "dataset, or one of the hub: hf:user/name,split=test,take=500."
        ),
    ] = None,
    text_column: Annotated[
        str, typer.Option(help="Column of --data that holds the texts.")
    ] = "text",
    label_column: Annotated[
        str | None, typer.Option(help="Column of --data that holds their labels.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Name of the run, to keep several in one folder.")
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="With --data: also keep what the routers said.")
    ] = False,
    device: Device = "auto",
    quantize: Quantize = None,
) -> None:
    """Record every routing weight of a text, or of many: a run that was stopped goes on."""
    from lmoe_studio.studio import Studio

    load = partial(Studio.load, bank, base=base, device=device, quantize=quantize)
    if data is not None:
        if text is not None or file is not None or out is None:
            raise ConfigError("--data goes with --out FOLDER, and without --text and --file.")
        corpus = _Corpus(data, out, text_column, label_column, run, max_tokens)
        _trace_corpus(corpus, load, contributions=contributions, scores=scores)
        return
    require_trace_name(out)
    prompt = given_text(text, file)
    with waiting() as tell:
        studio = load(on_progress=tell)
        tell("Tracing")
        trace = studio.trace(prompt, max_tokens=max_tokens, contributions=contributions)
    if studio.model.hindsight:
        say(studio.model.hindsight)
    if out is None:
        _print_trace(trace)
        return
    write_trace(trace, out)
    shape = " × ".join(map(str, trace.routing_weights.shape))
    say(f"Wrote {out}: {shape} routing weights (positions × sites × experts).")


@dataclass(frozen=True)
class _Corpus:
    """What `lmoe trace --data` was told."""

    data: str
    out: Path
    text_column: str
    label_column: str | None
    run: str | None
    max_tokens: int | None


def _trace_corpus(
    corpus: _Corpus, load: "Callable[..., Studio]", *, contributions: bool, scores: bool
) -> None:
    from lmoe_studio.cli.corpus import said_corpus
    from lmoe_studio.tracing.corpus_parts import require_runs_only

    require_folder_place(corpus.out)
    require_runs_only(corpus.out)
    with said_corpus(
        corpus.data, corpus.text_column, corpus.label_column, keep_in=corpus.out / "_data"
    ) as file:  # before the model
        _trace_file(file, corpus, load, contributions=contributions, scores=scores)


def _trace_file(
    file: Path, corpus: _Corpus, load: "Callable[..., Studio]", *, contributions: bool, scores: bool
) -> None:
    with waiting() as tell:
        studio = load(on_progress=tell)
    with progress_bar() as bar:
        task = bar.add_task("Tracing", total=1.0, line="")

        def show(progress: "CorpusProgress") -> None:
            line = f"{progress.texts:,}/{progress.of_texts:,} texts  {progress.tokens:,} tokens"
            bar.update(task, completed=progress.share, line=line)

        found = studio.trace_corpus(
            file,
            out=corpus.out,
            text_column=corpus.text_column,
            label_column=corpus.label_column,
            run=corpus.run,
            max_tokens=corpus.max_tokens,
            contributions=contributions,
            scores=scores,
            on_progress=show,
        )
    cut = f", {found.cut:,} of them cut" if found.cut else ""
    missing = f", {found.unlabelled:,} without a label" if found.unlabelled else ""
    unlabelled = missing if corpus.label_column else ""
    say(
        f"Wrote {corpus.out}, run {found.run}: {found.texts:,} texts{cut}{unlabelled}, "
        f"{found.tokens:,} tokens. Read it with pandas.read_parquet({str(corpus.out)!r})."
    )


def _print_trace(trace: "RoutingTrace") -> None:
    from analysis import token_frame

    table = Table("position", "token", "log p", "top expert", "mean weight")
    for row in token_frame(trace).itertuples():
        chance = f"{row.logprob:.2f}" if row.position else ""
        token = repr(row.token)[1:-1]
        table.add_row(
            str(row.position), token, chance, str(row.top_expert), f"{row.top_weight:.2f}"
        )
    table_console().print(table)
