"""`lmoe jobs`: training in the background."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from lmoe_studio.cli.console import say, table_console
from lmoe_studio.cli.options import Quantize
from lmoe_studio.cli.training_progress import TrainingProgress
from lmoe_studio.errors import JobError

if TYPE_CHECKING:
    from lmoe_studio.jobs.job import Job

commands = typer.Typer()
jobs = typer.Typer(
    help="Train in the background, one job at a time; jobs outlive the terminal and the app.",
    no_args_is_help=True,
)
commands.add_typer(jobs, name="jobs")

Id = Annotated[str, typer.Argument(help="Id of the job, or the beginning of it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@jobs.command(
    "start", epilog="Example: `lmoe jobs start examples/skills/demo.yaml --name my-skills`"
)
def _start(
    config: Annotated[Path, typer.Argument(help="YAML or JSON; see docs/training.md.")],
    name: Annotated[str | None, typer.Option(help="Name the bank so instead.")] = None,
    steps: Annotated[int | None, typer.Option(help="Train this many steps instead.")] = None,
    seed: Annotated[int | None, typer.Option(help="Use this seed instead.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps.")] = None,
    quantize: Quantize = None,
    copy_data: Annotated[
        bool, typer.Option("--copy-data", help="Keep copies of the texts, should yours change.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a bank in a process of its own; its id goes to stdout."""
    from lmoe_studio.jobs.jobs import Jobs
    from lmoe_studio.training.config import TrainingConfig

    changes = {"name": name, "steps": steps, "seed": seed, "device": device, "quantize": quantize}
    changes = {option: value for option, value in changes.items() if value is not None}
    values = TrainingConfig.read(config).model_dump(mode="json") | changes
    settings = TrainingConfig.parse(values, source="Options")
    everything = Jobs()
    everything.adopt()  # whoever waited longer goes first
    job = everything.start(settings, copy_data=copy_data)
    print(json.dumps(job.to_dict(), indent=2) if as_json else job.id)
    say(f"Job {job.id} trains bank '{job.name}'; `lmoe jobs watch {job.id}` shows how it goes.")


@jobs.command("list", epilog="Example: `lmoe jobs list`")
def _list(as_json: AsJson = False) -> None:
    """Show all jobs, the newest first."""
    from lmoe_studio.jobs.jobs import Jobs

    found = Jobs().list()
    if as_json:
        print(json.dumps([job.to_dict() for job in found], indent=2, ensure_ascii=False))
        return
    table = Table("id", "bank", "state", "step", "created")
    for job in found:
        table.add_row(job.id, job.name, job.state.value, f"{job.step}/{job.steps}", job.created)
    table_console().print(table)


@jobs.command("show", epilog="Example: `lmoe jobs show k7m2q`")
def _show(
    job: Id,
    lines: Annotated[int, typer.Option(min=0, help="Lines of its log.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show one job, and the end of its log."""
    from lmoe_studio.jobs.jobs import Jobs

    everything = Jobs()
    found = everything.get(job)
    log = everything.log_tail(found.id, lines)
    if as_json:
        print(json.dumps({**found.to_dict(), "log": list(log)}, indent=2, ensure_ascii=False))
        return
    out = table_console()
    for field, value in _description(found).items():
        out.print(Text.assemble((f"{field:8}", "bold"), f" {value}"), soft_wrap=True)
    for line in log:
        out.print(line, style="dim", soft_wrap=True)


@jobs.command("watch", epilog="Example: `lmoe jobs watch k7m2q`; Ctrl+C leaves the job alone.")
def _watch(job: Id) -> None:
    """Show how a job goes, until it ends."""
    from lmoe_studio.jobs.jobs import Jobs

    everything = Jobs()
    found = everything.get(job)
    with TrainingProgress() as progress:
        for item in everything.watch(found.id):
            progress.show(item.event)
    found = everything.get(found.id)
    if found.reason:
        raise JobError(f"Job {found.id} is {found.state}: {found.reason}")
    say(f"Job {found.id} is {found.state}.")


@jobs.command("cancel", epilog="Example: `lmoe jobs cancel k7m2q`")
def _cancel(job: Id) -> None:
    """Let a job stop after the step it is at, and save."""
    from lmoe_studio.jobs.jobs import Jobs

    found = Jobs().cancel(job)
    say(f"Job {found.id} stops and saves; `lmoe jobs resume {found.id}` lets it go on.")


@jobs.command("resume", epilog="Example: `lmoe jobs resume k7m2q`")
def _resume(job: Id) -> None:
    """Let a job go on that failed, was cancelled or interrupted."""
    from lmoe_studio.jobs.jobs import Jobs

    found = Jobs().resume(job)
    say(f"Job {found.id} goes on; `lmoe jobs watch {found.id}` shows how.")


@jobs.command("remove", epilog="Example: `lmoe jobs remove k7m2q`")
def _remove(job: Id) -> None:
    """Delete a job with its checkpoints and its log; the bank that it made stays."""
    from lmoe_studio.jobs.jobs import Jobs

    everything = Jobs()
    found = everything.get(job)
    everything.remove(found.id)
    say(f"Removed job {found.id}.")


def _description(job: "Job") -> dict[str, Any]:
    """The fields of a job that say something, for people."""
    fields = {
        "id": job.id,
        "name": job.name,
        "state": job.state.value,
        "step": f"{job.step} of {job.steps}",
        "reason": job.reason,
        "bank": job.bank,
        "folder": job.folder,
        "created": job.created,
        "started": job.started,
        "ended": job.ended,
        "pid": job.pid,
    }
    return {name: value for name, value in fields.items() if value is not None}
