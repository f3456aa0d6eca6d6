"""What a row of data says: a text, a pair or a conversation, found by the usual names of columns.

| columns | who writes them so | what is learned |
| --- | --- | --- |
| `text` | | all of it |
| `prompt` and `response`, or `completion` | TRL | the second |
| `instruction`, `input` (may be empty), `output` | alpaca | `output` |
| `messages`: a list of `role` and `content` | OpenAI, TRL | what the assistant says |
| `conversations`: a list of `from` and `value` | ShareGPT | the same |

A prompt and a completion may themselves be lists of messages.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lmoe_studio.errors import DataError

MAX_TEXT = 1_000_000  # characters; a longer text, or cell, is no text but a broken file
Kind = Literal["text", "pair", "messages"]


@dataclass(frozen=True)
class Layout:
    """Columns that make a row together."""

    kind: Kind
    columns: tuple[str, ...]
    also: str | None = None
    """One that may be there or not."""

    @property
    def names(self) -> tuple[str, ...]:
        """All its columns, in the order in which they are read."""
        also = [self.also] if self.also else []
        return (*self.columns[:-1], *also, self.learned)

    @property
    def learned(self) -> str:
        """The column that a row is learned from."""
        return self.columns[-1]


LAYOUTS = (
    Layout("messages", ("messages",)),
    Layout("messages", ("conversations",)),
    Layout("text", ("text",)),
    Layout("pair", ("prompt", "response")),
    Layout("pair", ("prompt", "completion")),
    Layout("pair", ("instruction", "output"), also="input"),
)
_ASKED = (
    "`text`, or `prompt` and `response` (or `completion`), or `messages`, or `instruction`, `input` "
    "and `output`, or `conversations`"
)
COLUMNS = tuple(dict.fromkeys(name for one in LAYOUTS for name in one.names))
"""All that may hold something to learn."""
_ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "chatgpt": "assistant", "model": "assistant",
}  # fmt: skip


@dataclass(frozen=True)
class TextRow:
    """One row of data, checked: a text, a pair or a conversation."""

    kind: Kind
    parts: tuple[tuple[str, str], ...]
    """(role, text); the role of a text is `text`, those of a pair `user` and `assistant`."""
    where: str
    repaired: bool = False
    """Lone surrogates were replaced, which stop a tokenizer."""
    columns: tuple[str, ...] = ()
    """What it was read from."""
    prompts: int = 0
    """How many parts of a conversation are only read, whoever speaks."""

    @property
    def is_blank(self) -> bool:
        """Whether it holds nothing to learn."""
        answers = self.parts[self.prompts :]
        return not any(text.strip() for role, text in answers if role in ("text", "assistant"))


def text_row(values: Mapping[str, Any], where: str) -> TextRow:
    """A row as the one kind that its columns fill; files that were united have empty ones too.

    Raises:
        DataError: it is of none, or of several; names `where`, and the columns that there are.
    """
    there = [one for one in LAYOUTS if set(one.columns) <= values.keys()]
    filled = _told_apart([one for one in there if not is_empty(values[one.learned])], values)
    if len(filled) > 1:
        names = " and ".join(f"`{one.learned}`" for one in filled)
        raise DataError(
            f"{where}: {names} are both filled, of the columns {_listed(values)}; a row is one of "
            "them, leave one empty."
        )
    if not there:
        raise DataError(f"{where}: expected {_ASKED}; got {_listed(values)}.")
    layout = (filled or there)[0]
    used = tuple(name for name in layout.names if name in values)
    kind, parts, prompts = _parts(layout, values, where)
    clean = tuple((role, text.encode("utf-8", "replace").decode()) for role, text in parts)
    return TextRow(kind, clean, where, clean != parts, used, prompts)


def has_layout(names: Collection[str]) -> bool:
    """Whether columns of these names make a row."""
    return any(set(one.columns) <= set(names) for one in LAYOUTS)


def _told_apart(filled: list[Layout], values: Mapping[str, Any]) -> list[Layout]:
    """Without a text that is the pair beside it written out, as alpaca's files have it."""
    text = values.get("text")
    pairs = [one for one in filled if one.kind == "pair"]
    if isinstance(text, str) and len(pairs) == 1:
        cells = [values[name] for name in pairs[0].columns]
        if all(isinstance(cell, str) and cell.strip() in text for cell in cells):
            return [one for one in filled if one.kind != "text"]
    return filled


def _parts(
    layout: Layout, values: Mapping[str, Any], where: str
) -> tuple[Kind, tuple[tuple[str, str], ...], int]:
    """What a row is, its parts, and how many of those are only read, whoever speaks."""
    *asked, answer = layout.columns
    if layout.kind == "messages":
        return "messages", _messages(values[answer], answer, where), 0
    if layout.kind == "text":
        return "text", (("text", _string(values, "text", where)),), 0
    prompt = asked[0]
    if isinstance(values[answer], list) and isinstance(values[prompt], list):
        before = _messages(values[prompt], prompt, where)
        return "messages", before + _messages(values[answer], answer, where), len(before)
    question = _string(values, prompt, where)
    if layout.also and (more := _string(values, layout.also, where)).strip():
        question = f"{question}\n\n{more}"
    return "pair", (("user", question), ("assistant", _string(values, answer, where))), 0


def is_empty(value: Any) -> bool:
    """Whether a cell is: null, NaN (a null that pandas wrote), blank, or without an entry."""
    is_nan = isinstance(value, float) and math.isnan(value)
    return value is None or is_nan or value == [] or (isinstance(value, str) and not value.strip())


def _messages(value: Any, column: str, where: str) -> tuple[tuple[str, str], ...]:
    if is_empty(value):
        return ()
    if isinstance(value, dict):  # how datasets before its version 4 gives a list of objects
        value = _turned(value)
    if not isinstance(value, list):
        raise DataError(
            f"{where}: '{column}' is {type(value).__name__}; expected a list of objects with "
            "`role` and `content`, or `from` and `value`."
        )
    parts = []
    for number, turn in enumerate(value, start=1):
        place = f"{where}, message {number}"
        role, content = ("from", "value") if _is_of_sharegpt(turn) else ("role", "content")
        speaker = turn.get(role) if isinstance(turn, dict) else None
        if not isinstance(speaker, str) or speaker not in _ROLES:
            came = f"; got {role} {speaker[:40]!r}" if isinstance(speaker, str) else ""
            raise DataError(
                f"{place}: expected `role` (system, user or assistant) and `content`, or `from` "
                f"(system, human or gpt) and `value`{came}."
            )
        parts.append((_ROLES[speaker], _string(turn, content, place)))
    return tuple(parts)


def _is_of_sharegpt(turn: Any) -> bool:
    return isinstance(turn, dict) and "from" in turn and not turn.get("role")


def _turned(lists: dict[str, Any]) -> Any:
    if not all(isinstance(one, list) for one in lists.values()):
        return lists
    return [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=False)]


def _string(values: Mapping[str, Any], column: str, where: str) -> str:
    value = values.get(column)
    if is_empty(value):
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: '{column}' is {type(value).__name__}, not text.")
    if len(value) > MAX_TEXT:
        raise DataError(
            f"{where}: longer than {MAX_TEXT:,} characters in '{column}'; split the text."
        )
    return value


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(str, names)) or "nothing"
