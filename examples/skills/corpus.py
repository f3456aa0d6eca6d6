"""From documents to the four files of a skill: split, mix, cap, keep train and held-out apart.

Every choice that looks random is a SHA-256 of a name, so the result depends on nothing but the
input: no seed, no hash seed, no order of files on a disk.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

MAX_CHARS = {"train": 3_000_000, "heldout": 300_000}
HELD_OUT_PERCENT = 8
MIN_CHUNK_CHARS = 150
NGRAM = 13
# A held-out text that shares more of its 13-word sequences with training than this is dropped.
MAX_SHARED = 0.5

Item = TypeVar("Item")


@dataclass(frozen=True)
class Pair:
    """A question and its answer."""

    prompt: str
    response: str


@dataclass(frozen=True)
class Document:
    """What must not be torn between training and held-out: an article, a file, a play."""

    name: str
    held_out: bool
    texts: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What one skill came to."""

    train_texts: int
    train_chars: int
    heldout_texts: int
    heldout_chars: int
    train_pairs: int
    heldout_pairs: int
    shared: float


def digest(name: str) -> int:
    """A number that looks random and depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def held_out(name: str) -> bool:
    """Whether a document of this name is held out."""
    return digest(f"split {name}") % 100 < HELD_OUT_PERCENT


def choose(options: tuple[str, ...], name: str) -> str:
    """One of several wordings, always the same one for a name."""
    return options[digest(f"wording {name}") % len(options)]


def chunks(text: str, max_chars: int) -> tuple[str, ...]:
    """Cut text at blank lines, and at line ends where one paragraph alone is too long."""
    pieces: list[str] = []
    for paragraph in re.findall(r".+?(?:\n{2,}|\Z)", text, re.DOTALL):
        too_long = len(paragraph) > max_chars
        pieces += paragraph.splitlines(keepends=True) if too_long else [paragraph]
    grown = [""]
    for piece in pieces:
        if len(grown[-1]) + len(piece) > max_chars:
            grown.append("")
        grown[-1] += piece
    cut = (chunk.strip("\n").rstrip() for chunk in grown)
    return tuple(chunk for chunk in cut if MIN_CHUNK_CHARS <= len(chunk) <= max_chars)


def write_skill(folder: Path, documents: Iterable[Document]) -> Summary:
    """Write the four files of a skill."""
    # Sources list files in archive order; by digest no file, topic or letter comes first.
    mixed = sorted(documents, key=lambda document: digest(f"order {document.name}"))
    train = [document for document in mixed if not document.held_out]
    heldout = [document for document in mixed if document.held_out]

    train_texts = _take(_mix(train), MAX_CHARS["train"], len)
    known = {gram for text in train_texts for gram in ngrams(text)}
    seen = set(train_texts)
    fresh = (
        text for text in _mix(heldout) if text not in seen and shared([text], known) <= MAX_SHARED
    )
    heldout_texts = _take(fresh, MAX_CHARS["heldout"], len)

    train_pairs = _take(_pairs(train, set()), MAX_CHARS["train"], _pair_chars)
    prompts = {pair.prompt for pair in train_pairs}
    heldout_pairs = _take(_pairs(heldout, prompts), MAX_CHARS["heldout"], _pair_chars)

    folder.mkdir(parents=True, exist_ok=True)
    _write_lines(folder / "train.jsonl", ({"text": text} for text in train_texts))
    _write_lines(folder / "heldout.jsonl", ({"text": text} for text in heldout_texts))
    _write_lines(folder / "pairs_train.jsonl", map(vars, train_pairs))
    _write_lines(folder / "pairs_heldout.jsonl", map(vars, heldout_pairs))
    return Summary(
        train_texts=len(train_texts),
        train_chars=sum(map(len, train_texts)),
        heldout_texts=len(heldout_texts),
        heldout_chars=sum(map(len, heldout_texts)),
        train_pairs=len(train_pairs),
        heldout_pairs=len(heldout_pairs),
        shared=shared(heldout_texts, known),
    )


def ngrams(text: str) -> list[int]:
    """The 13-word sequences of a text, as numbers to save memory."""
    words = text.split()
    return [hash(tuple(words[i : i + NGRAM])) for i in range(len(words) - NGRAM + 1)]


def shared(texts: Iterable[str], known: set[int]) -> float:
    """The share of the texts' 13-word sequences that are known."""
    grams = [gram for text in texts for gram in ngrams(text)]
    return sum(gram in known for gram in grams) / max(1, len(grams))


def _mix(documents: list[Document]) -> Iterator[str]:
    """Every text once, in an order that scatters the chunks of one document."""
    named = {
        text: digest(f"order {document.name}#{number}")
        for document in documents
        for number, text in enumerate(document.texts)
    }
    yield from sorted(named, key=named.__getitem__)


def _pairs(documents: list[Document], taken: set[str]) -> Iterator[Pair]:
    """Every pair whose prompt is neither taken nor a repeat, scattered like the texts."""
    named = {
        pair.prompt: (digest(f"order {document.name}#{number}"), pair)
        for document in documents
        for number, pair in enumerate(document.pairs)
        if pair.prompt not in taken
    }
    for prompt in sorted(named, key=lambda prompt: named[prompt][0]):
        yield named[prompt][1]


def _pair_chars(pair: Pair) -> int:
    return len(pair.prompt) + len(pair.response)


def _take(items: Iterator[Item], max_chars: int, size: Callable[[Item], int]) -> list[Item]:
    """Items from the front until one no longer fits."""
    taken, total = [], 0
    for item in items:
        total += size(item)
        if total > max_chars:
            break
        taken.append(item)
    return taken


def _write_lines(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Write JSON lines, with the same line ends on every system."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
