"""The `lmoe` command. Data goes to files or stdout, messages to stderr.

Commands import what they need when they run, so that `lmoe --help` answers at once.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lmoe_studio.errors import ConfigError, LMoEError, StorageError, TextError
from lmoe_studio.version import __version__

if TYPE_CHECKING:
    from lmoe_studio.generation.text import Generation
    from lmoe_studio.routing.plan import RoutingPlan
    from lmoe_studio.tracing.corpus import CorpusProgress
    from lmoe_studio.tracing.records import RoutingTrace
    from lmoe_studio.training.events import Event

app = typer.Typer(
    name="lmoe",
    help="See, steer and measure mixtures of LoRA experts.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
messages = Console(stderr=True, highlight=False)

Bank = Annotated[str, typer.Option(help="A shipped bank's name, or a bank folder.")]
Base = Annotated[
    str | None, typer.Option(help="Load this base model instead of the one the bank names.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]


def main() -> None:
    """Run a command; a person's mistake ends in one sentence and exit code 1."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app()
    except LMoEError as error:
        if debug:
            raise
        _say(f"[red]Error:[/] {_plain(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.callback(epilog="`--debug` with any command shows the traceback of an error.")
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command("app", epilog="Example: `lmoe app --bank demo --port 7860`")
def _app(
    bank: Bank = "demo",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    password: Annotated[
        str | None, typer.Option(envvar="LMOE_PASSWORD", help="Needed beyond this machine.")
    ] = None,
    device: Device = "auto",
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Open the Studio in the browser."""
    from lmoe_studio.ui.app import launch

    launch(bank, host, port, open_browser=browser, password=password, device=device)


@app.command(
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
        Path | None,
        typer.Option(help="Trace many texts: .jsonl, .csv, .parquet, or .txt with a text a line."),
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
        bool, typer.Option("--scores", help="With --data: also keep logits and probabilities.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Record every routing weight of a text, or of many: a run that was stopped goes on."""
    from lmoe_studio.studio import Studio

    if data is not None:
        if text is not None or file is not None or out is None:
            raise ConfigError("--data goes with --out FOLDER, and without --text and --file.")
        corpus = _Corpus(data, out, text_column, label_column, run, max_tokens)
        _trace_corpus(corpus, bank, base, device, contributions=contributions, scores=scores)
        return
    _require_trace_name(out)
    prompt = _text(text, file)
    with messages.status("") as status:
        studio = Studio.load(bank, base=base, device=device, on_progress=status.update)
        status.update("Tracing")
        trace = studio.trace(prompt, max_tokens=max_tokens, contributions=contributions)
    if out is None:
        _print_trace(trace)
        return
    _write_trace(trace, out)
    shape = " × ".join(map(str, trace.routing_weights.shape))
    _say(f"Wrote {out}: {shape} routing weights (positions × sites × experts).")


@app.command(
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
) -> None:
    """Write a text after a prompt, under a routing plan if one is given."""
    from lmoe_studio.routing.plan import RoutingPlan
    from lmoe_studio.studio import Studio

    _require_trace_name(out)
    given = _text(prompt, file, "--prompt")
    steer = RoutingPlan.from_json(_read(plan), source=str(plan)) if plan else None
    with messages.status("") as status:
        studio = Studio.load(bank, base=base, device=device, on_progress=status.update)
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
        _write_trace(result.trace, out)
    _say(
        f"{len(result.token_ids)} tokens, {result.tokens_per_second:.1f} a second, seed {result.seed}; "
        f"ended by {result.finish}."
    )


@app.command("merge", epilog="Example: `lmoe merge demo --blend sql=.6,french=.4 --out blended`")
def _merge(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    bank: Annotated[str, typer.Argument(help="A shipped bank's name, or a bank folder.")] = "demo",
    blend: Annotated[str | None, typer.Option(help="NAME=WEIGHT, separated by commas.")] = None,
    plan: Annotated[
        Path | None, typer.Option(help="Instead of --blend: a plan that fixes all weights.")
    ] = None,
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

    if (blend is None) == (plan is None):
        raise ConfigError("Give either --blend, for example sql=.6,french=.4, or --plan FILE.")
    if plan is not None:
        asked = RoutingPlan.from_json(_read(plan), source=str(plan))
    else:
        asked = dict(_name_and_weight(item) for item in (blend or "").split(","))
    with messages.status("") as status:
        studio = Studio.load(bank, base=base, device=device, on_progress=status.update)
        status.update("Merging")
        result = studio.merge(asked, out, rank=rank, full=full)
    worst = max(result.errors, key=lambda name: result.errors[name])
    if result.errors[worst]:
        table = Table("module", "relative error", title="‖ΔW − merged‖ / ‖ΔW‖")
        for name, error in result.errors.items():
            table.add_row(name, f"{error:.4f}")
        messages.print(table)
    _say(
        f"Wrote {out}: rank {result.rank}, largest relative error {result.errors[worst]:.2g} "
        f"({worst}). Read back, its logits differ from the live blend's by at most "
        f"{result.max_difference:.2g}."
    )


@app.command("train", epilog="Example: `lmoe train examples/skills/demo.yaml`")
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
    with _TrainingProgress() as progress:
        run_training(settings, progress.show)


@app.command("import", epilog="Example: `lmoe import --expert sql=loras/sql --out my-bank`")
def _import(
    expert: Annotated[list[str], typer.Option(help="NAME=FOLDER of a PEFT LoRA; once for each.")],
    out: Annotated[Path, typer.Option(help="Folder to write the bank to.")],
    base: Annotated[
        str, typer.Option(help="The base model of the adapters.")
    ] = "smollm2-135m-instruct",
    router: Annotated[
        str, typer.Option(help="arrow (routes by the adapters' own directions) or uniform.")
    ] = "arrow",
    temperature: Annotated[float, typer.Option(help="Of the router.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Experts a token.")] = None,
) -> None:
    """Make a bank of PEFT LoRA adapters; it routes at once, without training."""
    from lmoe_studio.base_models import load_base
    from lmoe_studio.config import RouterSettings
    from lmoe_studio.experts.bank import ExpertBank
    from lmoe_studio.experts.files import save_bank
    from lmoe_studio.mixture import MixtureModel

    folders = dict(_name_and_folder(item) for item in expert)
    if len(folders) < len(expert):
        raise ConfigError("--expert: two experts have the same name; give each its own.")
    scope = "module" if router == "arrow" else "layer"
    options = {"kind": router, "scope": scope, "temperature": temperature, "top_k": top_k}
    settings = RouterSettings.parse(options, source="router")
    with messages.status("") as status:
        model = load_base(base, device="cpu", on_progress=status.update)
        status.update("Reading the adapters")
        bank = ExpertBank.from_adapters(
            folders, base=model.identity, name=out.name, router=settings
        )
        MixtureModel(model.model, bank)  # whatever does not fit says so here
    save_bank(bank, out)
    _say(f"Wrote {out}: {len(folders)} experts, {bank.router} router.")


@app.command("inspect", epilog="Example: `lmoe inspect demo --json`")
def _inspect(
    bank: Annotated[str, typer.Argument(help="A shipped bank's name, or a bank folder.")] = "demo",
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


@app.command("report", epilog="Example: `lmoe report runs/x --out report.html`")
def _report(
    folder: Annotated[Path, typer.Argument(help="Folder that `lmoe trace --data` wrote.")],
    out: Annotated[Path, typer.Option(help="HTML file to write; it needs nothing else.")],
    run: Annotated[
        str | None, typer.Option(help="Which run, where the folder holds several.")
    ] = None,
) -> None:
    """Say which expert handles what, and where in the network, from a traced corpus."""
    from analysis import FrameError
    from lmoe_studio.errors import DataError
    from lmoe_studio.ui.report import write_report
    from lmoe_studio.ui.study import study_of_run

    with messages.status("") as status:
        try:
            study = study_of_run(folder, run, on_step=status.update)
        except FrameError as error:
            raise DataError(f"{folder}: {error}") from None
    write_report(study, out)
    for answer in study.answers:
        print(answer)
    _say(f"Wrote {out}.")


@dataclass(frozen=True)
class _Corpus:
    """What `lmoe trace --data` was told."""

    data: Path
    out: Path
    text_column: str
    label_column: str | None
    run: str | None
    max_tokens: int | None


def _trace_corpus(
    corpus: _Corpus, bank: str, base: str | None, device: str, *, contributions: bool, scores: bool
) -> None:
    from lmoe_studio.studio import Studio
    from lmoe_studio.tracing.corpus_files import CorpusFile, survey

    survey(CorpusFile(corpus.data, corpus.text_column, corpus.label_column))  # before the model
    with messages.status("") as status:
        studio = Studio.load(bank, base=base, device=device, on_progress=status.update)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[line]}"))
    with Progress(*columns, TimeRemainingColumn(), console=messages) as bar:
        task = bar.add_task("Tracing", total=1.0, line="")

        def show(progress: "CorpusProgress") -> None:
            line = f"{progress.texts:,}/{progress.of_texts:,} texts  {progress.tokens:,} tokens"
            bar.update(task, completed=progress.share, line=line)

        found = studio.trace_corpus(
            corpus.data,
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
    _say(
        f"Wrote {corpus.out}, run {found.run}: {found.texts:,} texts{cut}{unlabelled}, "
        f"{found.tokens:,} tokens. Read it with pandas.read_parquet({str(corpus.out)!r})."
    )


class _TrainingProgress:
    """Shows the events of a run as a progress bar."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[line]}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=messages)
        self._task = self._bar.add_task("Training", total=None, line="")

    def __enter__(self) -> "_TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: "Event") -> None:
        from lmoe_studio.training.events import EvalDone, Finished, Message, StepDone

        match event:
            case Message(text):
                self._bar.console.print(_plain(text))
            case StepDone():
                line = (
                    f"step {event.step}/{event.steps}  loss {event.language_loss:.3f}  "
                    f"balance {event.balance_loss:.2f}  {event.tokens_per_second:,.0f} tokens/s"
                )
                self._bar.update(self._task, total=event.steps, completed=event.step, line=line)
                if not self._bar.console.is_terminal and event.step % 10 == 0:
                    self._bar.console.print(line)
            case EvalDone():
                self._bar.console.print(_loss_table(event))
            case Finished(folder):
                self._bar.console.print(f"Wrote {folder}")


def _loss_table(event: Any) -> Table:
    table = Table("skill", "base", "bank", "change", title="Held-out loss, nats a token")
    for name, base in event.base.items():
        bank = event.bank[name]
        table.add_row(name, f"{base:.3f}", f"{bank:.3f}", f"{bank - base:+.3f}")
    return table


def _text(text: str | None, file: Path | None, option: str = "--text") -> str:
    if text is not None and file is not None:
        raise TextError(f"Give {option} or --file, not both.")
    if text is not None:
        return text
    return sys.stdin.read() if file is None else _read(file)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise StorageError(f"{file} is not UTF-8 text (byte {error.start}).") from None


def _require_trace_name(out: Path | None) -> None:
    if out is not None and out.suffix not in (".parquet", ".safetensors", ".csv"):
        raise StorageError(f"--out {out.name}: end the name in .parquet, .safetensors or .csv.")


def _write_trace(trace: "RoutingTrace", out: Path) -> None:
    from analysis import routing_frame
    from analysis.spreadsheet import write_csv
    from lmoe_studio.tracing.files import save_trace

    if out.suffix != ".csv":
        save_trace(trace, out)
        return
    try:
        write_csv(routing_frame(trace), out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror}.") from None


def _print_trace(trace: "RoutingTrace") -> None:
    from analysis import token_frame

    table = Table("position", "token", "log p", "top expert", "mean weight")
    for row in token_frame(trace).itertuples():
        chance = f"{row.logprob:.2f}" if row.position else ""
        token = _plain(repr(row.token)[1:-1])
        table.add_row(
            str(row.position), token, chance, str(row.top_expert), f"{row.top_weight:.2f}"
        )
    Console().print(table)


def _print_bank(description: dict[str, Any]) -> None:
    out = Console(highlight=False)
    for name in ("name", "base", "composition", "router", "parameters"):
        out.print(f"[bold]{name:12}[/] {_plain(str(description[name]))}")
    table = Table("expert", "rank", "norm of updates", "modules", "description")
    for item in description["experts"]:
        ranks = ", ".join(map(str, item["ranks"]))
        table.add_row(
            _plain(item["name"]),
            ranks,
            f"{item['update_norm']:.2f}",
            str(item["modules"]),
            _plain(item["description"]),
        )
    out.print(table)
    if "geometry" in description:
        _print_geometry(out, description["geometry"])


def _print_geometry(out: Console, geometry: dict[str, Any]) -> None:
    names = list(geometry["norm"])
    sizes = Table("expert", "norm", "effective rank", title="Size of the updates")
    likeness = Table("cosine", *map(_plain, names), title="Likeness of the updates")
    for name in names:
        rank = geometry["effective_rank"][name]
        sizes.add_row(_plain(name), f"{geometry['norm'][name]:.2f}", f"{rank:.2f}")
        cosines = geometry["cosine"][name]
        likeness.add_row(_plain(name), *(_number(cosines[other]) for other in names))
    out.print(sizes)
    out.print(likeness)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


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


def _name_and_weight(item: str) -> tuple[str, float]:
    name, equals, weight = item.strip().partition("=")
    try:
        if name and equals:
            return name, float(weight)
    except ValueError:
        pass
    raise ConfigError(f"--blend '{item}': write NAME=WEIGHT, for example sql=.6,french=.4.")


def _name_and_folder(item: str) -> tuple[str, str]:
    name, equals, folder = item.partition("=")
    if not (name and equals and folder):
        raise ConfigError(f"--expert '{item}': write NAME=FOLDER, for example sql=loras/sql.")
    return name, folder


def _say(text: str) -> None:
    messages.print(text, soft_wrap=True)


def _plain(text: str) -> str:
    """Text that rich shows as it is."""
    return text.replace("[", r"\[")
