"""Messages that call files as the person who gave them does, and not as the server keeps them."""

from collections.abc import Mapping
from pathlib import Path


def in_words(message: str, names: Mapping[Path, str]) -> str:
    """A message with each path replaced by its name, the longest first."""
    for path in sorted(names, key=lambda path: -len(str(path))):
        message = message.replace(str(path), names[path])
    return f"T{message[1:]}" if message.startswith("the ") else message
