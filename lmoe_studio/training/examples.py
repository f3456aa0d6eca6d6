"""One row of a data file becomes one example: token ids, and which of them are to be learned."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.errors import DataError, TextError
from lmoe_studio.sources.rows import COLUMNS, MAX_TEXT, TextRow, text_row
from lmoe_studio.text_reader import TextReader, shared_length
from lmoe_studio.text_rows import read_rows

IGNORED = -100
"""Label of a token that is read and not learned (PyTorch's `ignore_index`)."""


@dataclass(frozen=True)
class Example:
    """Token ids with a label each: the token itself, or IGNORED where it is only read."""

    ids: list[int]
    labels: list[int]
    steps: list[int]
    """Of an answer, how many tokens of it stand before each; -1 for what it answers, and of texts."""

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int | None = None) -> "Example":
        """Some of its tokens."""
        return Example(self.ids[start:stop], self.labels[start:stop], self.steps[start:stop])

    def after(self, other: "Example") -> "Example":
        """Both in one sequence, the other first."""
        return Example(other.ids + self.ids, other.labels + self.labels, other.steps + self.steps)

    def unforeseen(self) -> "Example":
        """The same where nothing foretells its first token."""
        return replace(self, labels=[IGNORED, *self.labels[1:]])

    @property
    def learned(self) -> int:
        """How many tokens are to be predicted; the first has nothing before it."""
        return sum(label != IGNORED for label in self.labels[1:])


def text_rows(path: Path) -> Iterator[TextRow]:
    """The rows of a data file, blank ones too.

    Raises:
        DataError: names the file, the line, the column, and what is wrong with it.
    """
    if path.suffix.lower() == ".txt":
        yield from (text_row({"text": text}, where) for where, text in _plain_texts(path))
    else:
        yield from (text_row(values, where) for where, values in read_rows(path, COLUMNS))


class Examples:
    """Makes examples of rows with one tokenizer.

    A text is learned whole; of a pair the response, of a conversation what the assistant says. Each
    begins as the tokenizer begins a text, or the chat template a conversation, as it will in use.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: Literal["plain", "chat"]
    ) -> None:
        self._reader = TextReader(tokenizer)
        self._end: Any = tokenizer.eos_token_id
        self._template = template

    @property
    def opening(self) -> list[int]:
        """What the tokenizer puts before a text."""
        return self._reader.around[0]

    def of(self, row: TextRow) -> Example:
        """Raises DataError for a conversation that the base's chat template refuses."""
        if row.kind == "text":
            return self._ended(self.measured(row))
        if row.kind == "pair" and self._template == "plain":
            (_, prompt), (_, response) = row.parts
            start = len(prompt) + 1
            return self._ended(self._example(f"{prompt}\n{response}", [(start, None)]))
        try:
            return self._example(*self._conversation(row), special=False)
        except TextError as error:
            raise DataError(f"{row.where}: {error} Give `prompt` and `response`.") from None

    def measured(self, row: TextRow) -> Example:
        """The same to measure a loss on: a text is read as `Studio.evaluate` reads it."""
        if row.kind != "text":
            return self.of(row)
        ids = self._reader.ids(row.parts[0][1])
        opening = len(self.opening)
        return Example(ids, [IGNORED] * opening + ids[opening:], [-1] * len(ids))

    def special_tokens(self, row: TextRow) -> int:
        """How many special tokens are written in a row, which are read as their characters."""
        return sum(len(self._reader.special_tokens(text)) for _, text in row.parts)

    def _example(
        self, text: str, learned: Sequence[tuple[int, int | None]], *, special: bool = True
    ) -> Example:
        """A text read as one; `learned` are stretches of its characters."""
        cuts = [len(text) if cut is None else cut for stretch in learned for cut in stretch]
        ids, places = self._reader.cut(text, cuts, special=special)
        labels, steps = [IGNORED] * len(ids), [-1] * len(ids)
        for start, stop in zip(places[::2], places[1::2], strict=True):
            labels[start:stop] = ids[start:stop]
            steps[start:stop] = range(stop - start)
        return Example(ids, labels, steps)

    def _ended(self, example: Example) -> Example:
        """With the end of a text, which is learned, unless the tokenizer has put one."""
        ids, labels, steps = example.ids, example.labels, example.steps
        if self._end is None:
            return example
        if ids and ids[-1] == self._end:
            return replace(example, labels=[*labels[:-1], self._end])
        step = steps[-1] + 1 if steps and steps[-1] >= 0 else -1
        return Example([*ids, self._end], [*labels, self._end], [*steps, step])

    def _conversation(self, row: TextRow) -> tuple[str, list[tuple[int, int]]]:
        """A conversation in the chat template, and where in it the assistant speaks."""
        turns = [{"role": role, "content": text} for role, text in row.parts]
        render = self._reader.chat
        whole, learned = render(turns), list[tuple[int, int]]()
        for index, turn in enumerate(turns):
            if turn["role"] != "assistant" or index < row.prompts:
                continue
            before = render(turns[:index], to_answer=True) if index else _shared(whole, render)
            after = whole if index + 1 == len(turns) else render(turns[: index + 1])
            if not (whole.startswith(after) and after.startswith(before)):
                raise TextError(
                    "The base model's chat template rewrites earlier turns, so that it cannot be "
                    "said which tokens are the assistant's."
                )
            learned.append((len(before), len(after)))
        return whole, learned


def _shared(whole: str, render: Callable[[Sequence[dict[str, str]]], str]) -> str:
    """What stands before the first words of a conversation that the assistant begins."""
    others = (render([{"role": "assistant", "content": content}]) for content in "01")
    return whole[: min(shared_length(whole, one) for one in others)]


def _plain_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Texts apart by blank lines; one a line in a file that has none between texts."""
    lines = ((where, row["text"]) for where, row in read_rows(path))
    if not _has_blocks(path):
        yield from lines
        return
    block, start, size = list[str](), "", 0
    for where, line in lines:
        if line.strip():
            start = start if block else where
            block.append(line)
            size += len(line)
            if size > MAX_TEXT:
                raise DataError(
                    f"{start}: a text of more than {MAX_TEXT:,} characters; part texts by blank "
                    "lines."
                )
        elif block:
            yield start, "\n".join(block)
            block, size = [], 0
    if block:
        yield start, "\n".join(block)


def _has_blocks(path: Path) -> bool:
    """Whether a blank line stands between two lines with text."""
    after_text = after_gap = False
    for _, row in read_rows(path):
        if row["text"].strip():
            if after_gap:
                return True
            after_text = True
        else:
            after_gap = after_text
    return False
