"""The `lmoe` command: a file a command. Data goes to files or stdout, messages to stderr.

Commands import what they need when they run, so that `lmoe --help` answers at once.
"""

import sys
import warnings
from typing import Annotated, Any

import typer

from lmoe_studio.cli import (
    adapt,
    bank,
    distil,
    evaluate,
    export,
    generate,
    hub,
    jobs,
    merge,
    report,
    serve,
    trace,
    train,
)
from lmoe_studio.cli.console import say
from lmoe_studio.cli.streams import settled_streams
from lmoe_studio.errors import LMoEError, OtherWeightsWarning, TrainingStopped
from lmoe_studio.version import __version__

app = typer.Typer(
    name="lmoe",
    help="See, steer and measure mixtures of LoRA experts.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

_show_warning = warnings.showwarning

# In the order of --help.
for _module in (
    serve,
    trace,
    evaluate,
    generate,
    merge,
    export,
    train,
    adapt,
    distil,
    jobs,
    bank,
    hub,
    report,
):
    app.add_typer(_module.commands)


def main() -> None:
    """Run a command; a person's mistake ends in one sentence and exit code 1."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    warnings.showwarning = _say_warning
    with settled_streams():
        try:
            _run()
        except TrainingStopped as stopped:  # as it was asked to
            say(str(stopped))
            sys.exit(130)
        except LMoEError as error:
            if debug:
                raise
            say(str(error), title="Error:")
            sys.exit(1)
        except OSError as error:  # of a name that the system cannot have, or a disk that fails
            if debug:
                raise
            say(f"{error.filename or 'A file'}: {error.strerror or error}.", title="Error:")
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)


def _say_warning(
    message: Warning | str, category: type[Warning], *place: Any, **where: Any
) -> None:
    """A warning of ours is a sentence; those of libraries stay as they are."""
    if issubclass(category, OtherWeightsWarning):
        say(str(message), title="Note:")
    else:
        _show_warning(message, category, *place, **where)


def _run() -> None:
    try:
        app()
    finally:
        sys.stdout.flush()  # what is still to be written shows here whether it can be


def _print_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback(epilog="`--debug` with any command shows the traceback of an error.")
def _top(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass
