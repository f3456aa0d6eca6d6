"""Shakespeare's plays and poems; whole works are held out."""

import re
from collections.abc import Iterator
from pathlib import Path

from corpus import Document, Pair, chunks
from packages import members

PACKAGES = ("shakespeare",)
HELD_OUT = ("macbeth", "twelfth_night", "sonnets")
MAX_CHARS = 4_000
MIN_SPEECH_CHARS = 40
CONTEXT_SPEECHES = 3
MAX_PAIR_CHARS = 2_400
SPEAKER = re.compile(r"[A-Z][A-Z .'-]{1,30}\.\n")


def documents(archives: list[Path]) -> Iterator[Document]:
    """One document per work."""
    # Files that end in _gut_f hold the same plays again, in the spelling of the First Folio.
    for path, content in members(archives[0], lambda name: name.endswith("_gut.txt")):
        name = path.rsplit("/", 1)[1].removesuffix("_gut.txt")
        text = _tidy(content.decode("utf-8"))
        yield Document(name, name in HELD_OUT, chunks(text, MAX_CHARS), tuple(_pairs(text)))


def _tidy(text: str) -> str:
    """One kind of line end, no trailing blanks, one blank line at most."""
    lines = (line.rstrip() for line in text.lstrip("\ufeff").splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _pairs(text: str) -> Iterator[Pair]:
    """The last few speeches in, the next speech out; a stage direction starts afresh."""
    scene: list[str] = []
    for block in text.split("\n\n"):
        if not (speaker := SPEAKER.match(block)):
            scene = []
            continue
        context = "\n\n".join(scene[-CONTEXT_SPEECHES:])
        scene.append(block)
        long_enough = len(block) - speaker.end() >= MIN_SPEECH_CHARS
        if len(scene) > 1 and long_enough and len(context) + len(block) <= MAX_PAIR_CHARS:
            who = speaker.group().strip().removesuffix(".")
            yield Pair(f"Continue the scene with the next speech of {who}.\n\n{context}", block)
