"""Messages and progress bars, on stderr; stdout is for data."""

import os

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

# Of several processes that train together, the first speaks.
messages = Console(stderr=True, highlight=False, quiet=os.environ.get("RANK", "0") != "0")


def say(text: str) -> None:
    """Print a message in one line, however long; rich's markup counts."""
    messages.print(text, soft_wrap=True)


def plain(text: str) -> str:
    """Text that rich shows as it is."""
    return text.replace("[", r"\[")


def progress_bar() -> Progress:
    """A bar with a description before it and the field `line` after it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[line]}"))
    return Progress(*columns, TimeRemainingColumn(), console=messages)
