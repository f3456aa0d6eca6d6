"""`lmoe report`."""

from pathlib import Path
from typing import Annotated

import typer

from lmoe_studio.cli.console import say, waiting
from lmoe_studio.cli.destination import require_file_place

commands = typer.Typer()


@commands.command("report", epilog="Example: `lmoe report runs/x --out report.html`")
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

    require_file_place(out)
    with waiting() as tell:
        try:
            study = study_of_run(folder, run, on_step=tell)
        except FrameError as error:
            raise DataError(f"{folder}: {error}") from None
    write_report(study, out)
    for answer in study.answers:
        print(answer)
    say(f"Wrote {out}.")
