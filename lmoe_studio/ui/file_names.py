"""Messages that call files as the person who gave them does, and not as the server keeps them."""

import re
from collections.abc import Mapping
from pathlib import Path

from gradio.utils import get_upload_folder


def in_words(message: str, names: Mapping[Path, str]) -> str:
    """A message with each path replaced by its name, the longest first, and uploads by theirs."""
    for path in sorted(names, key=lambda path: -len(str(path))):
        message = message.replace(str(path), names[path])
    return without_uploads(f"T{message[1:]}" if message.startswith("the ") else message)


def without_uploads(message: str) -> str:
    """A message that names no folder of uploads: each file lies in one that its hash names."""
    folder = get_upload_folder()
    either = "|".join(re.escape(str(one)) for one in (folder, Path(folder).resolve()))
    return re.sub(rf"(?:{either})[/\\][0-9a-f]{{32,}}[/\\]", "", message)
