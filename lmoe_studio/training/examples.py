"""One row of a data file becomes one example: token ids, and which of them are to be learned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.errors import DataError
from lmoe_studio.text_rows import MAX_TEXT, read_rows

IGNORED = -100
"""Label of a token that is read and not learned (PyTorch's `ignore_index`)."""
COLUMNS = ("text", "prompt", "response", "messages")


@dataclass(frozen=True)
class Example:
    """Token ids with a label each: the token itself, or IGNORED where it is only read."""

    ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def learned(self) -> int:
        """How many tokens are to be predicted; the first has nothing before it."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True)
class TextRow:
    """One row of a data file, checked: a text, a pair or a conversation."""

    kind: Literal["text", "pair", "messages"]
    parts: tuple[tuple[str, str], ...]
    """(role, text); the role of a text is `text`, those of a pair `user` and `assistant`."""
    where: str
    repaired: bool = False
    """Lone surrogates were replaced, which stop a tokenizer."""

    @property
    def is_blank(self) -> bool:
        """Whether it holds nothing to learn."""
        return not any(text.strip() for role, text in self.parts if role in ("text", "assistant"))


def text_rows(path: Path) -> Iterator[TextRow]:
    """The rows of a data file, blank ones too.

    Raises:
        DataError: names the file, the line, the column, and what is wrong with it.
    """
    if path.suffix.lower() == ".txt":
        yield from (_row({"text": text}, where) for where, text in _plain_texts(path))
    else:
        yield from (_row(values, where) for where, values in read_rows(path, COLUMNS))


class Examples:
    """Makes examples of rows with one tokenizer.

    A text is learned whole; of a pair the response, of a conversation what the assistant says.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: Literal["plain", "chat"]
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template

    def of(self, row: TextRow) -> Example:
        """Raises DataError for a conversation, where the base has no chat template that fits."""
        if row.kind == "text":
            return self._joined([(row.parts[0][1], True)], end=True)
        if row.kind == "pair" and self._template == "plain":
            (_, prompt), (_, response) = row.parts
            return self._joined([(f"{prompt}\n", False), (response, True)], end=True)
        return self._joined(self._turns(row), end=False)

    def _joined(self, pieces: Sequence[tuple[str, bool]], *, end: bool) -> Example:
        ids: list[int] = []
        labels: list[int] = []
        for text, learned in pieces:
            found = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += found
            labels += found if learned else [IGNORED] * len(found)
        if end:
            closing: Any = self._tokenizer.eos_token_id
            ids.append(closing)
            labels.append(closing)
        return Example(ids, labels)

    def _turns(self, row: TextRow) -> list[tuple[str, bool]]:
        """A conversation cut where the assistant begins and ends to speak."""
        if not self._tokenizer.chat_template:
            raise DataError(
                f"{row.where}: the base model has no chat template for conversations; give `text`, "
                "or `prompt` and `response` with template 'plain'."
            )
        turns = [{"role": role, "content": text} for role, text in row.parts]
        render = partial(self._tokenizer.apply_chat_template, tokenize=False)
        cuts, learned = [""], []
        for index, turn in enumerate(turns):
            if turn["role"] == "assistant":
                cuts.append(str(render(turns[:index], add_generation_prompt=True)))
                learned.append(False)
            cuts.append(str(render(turns[: index + 1])))
            learned.append(turn["role"] == "assistant")
        if not all(after.startswith(before) for before, after in pairwise(cuts)):
            raise DataError(
                f"{row.where}: the base model's chat template rewrites earlier turns, so that it "
                "cannot be said which tokens are the assistant's; give `prompt` and `response`."
            )
        pieces = [after[len(before) :] for before, after in pairwise(cuts)]
        return list(zip(pieces, learned, strict=True))


def _row(values: dict[str, Any], where: str) -> TextRow:
    if values.get("messages") is not None:
        return _repaired("messages", _messages(values["messages"], where), where)
    if "text" in values:
        return _repaired("text", (("text", _string(values, "text", where)),), where)
    if "prompt" in values and "response" in values:
        parts = (
            ("user", _string(values, "prompt", where)),
            ("assistant", _string(values, "response", where)),
        )
        return _repaired("pair", parts, where)
    raise DataError(
        f"{where}: expected `text`, or `prompt` and `response`, or `messages`; got "
        f"{', '.join(map(str, values)) or 'nothing'}."
    )


def _messages(value: Any, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise DataError(
            f"{where}: 'messages' is {type(value).__name__}; expected a list of objects with "
            "`role` and `content`."
        )
    parts = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, dict) or turn.get("role") not in ("system", "user", "assistant"):
            raise DataError(
                f"{where}, message {number}: expected `role` (system, user or assistant) and "
                "`content`."
            )
        parts.append((str(turn["role"]), _string(turn, "content", f"{where}, message {number}")))
    return tuple(parts)


def _string(values: dict[str, Any], column: str, where: str) -> str:
    value = values.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: '{column}' is {type(value).__name__}, not text.")
    if len(value) > MAX_TEXT:
        raise DataError(
            f"{where}: longer than {MAX_TEXT:,} characters in '{column}'; split the text."
        )
    return value


def _repaired(
    kind: Literal["text", "pair", "messages"], parts: tuple[tuple[str, str], ...], where: str
) -> TextRow:
    clean = tuple((role, text.encode("utf-8", "replace").decode()) for role, text in parts)
    return TextRow(kind, clean, where, repaired=clean != parts)


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
