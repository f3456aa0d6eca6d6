"""Messages and progress bars, on stderr; stdout is for data.

Names are never markup: whoever wants a style gives it with a `Text`, or beside the text.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

# Of several processes that train together, the first speaks.
messages = Console(
    stderr=True, highlight=False, markup=False, emoji=False,
    quiet=os.environ.get("RANK", "0") != "0",
)  # fmt: skip


def say(text: str, *, title: str = "") -> None:
    """Print a message in one line, however long; its title, such as "Error:", in red."""
    line = Text.assemble((title, "red"), " " if title else "", text)
    messages.print(line, soft_wrap=True)


@contextmanager
def waiting() -> Iterator[Callable[[str], None]]:
    """A spinner while something is done; what it gives says what that is."""
    with messages.status("") as status:
        yield lambda text: status.update(Text(text))


def table_console() -> Console:
    """What tables for people are printed to: stdout."""
    return Console(highlight=False, markup=False, emoji=False)


def progress_bar() -> Progress:
    """A bar with a description before it and the field `line` after it."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[line]}", markup=False),
    )
    return Progress(*columns, TimeRemainingColumn(), console=messages)
