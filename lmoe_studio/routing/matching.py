"""Where a text or a regular expression occurs in a stream of tokens. Plain strings, no torch.

A prompt token is in scope if a match anywhere in the prompt overlaps it. A generated token is in
scope if a match overlaps it in the text up to and including that token: what comes later cannot
be known while generating, so a match counts from the token that completes it.
"""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

import regex

from lmoe_studio.errors import PlanError

MAX_PATTERN = 200
"""Characters of a text or a regular expression."""
_SECONDS = 0.1  # of this thread's computing for one search; ordinary ones take a thousandth of it
_ONE_CHARACTER = regex.compile(
    r"(?:[^\W_]|[ ,;:_\n]|\\[dDwWsS.]|\[\^?(?:[^\W_]-[^\W_]|[^\W_]|[ .,;:_\n]|\\[dDwWsS])+\])\+?"
)
_ATOM = r"(?:[^\W_]|[ ,;:_\n/'\"=<>!@%&~`-]|\\[bdDwWsS]|\\\W|\[\^?(?:[^\W_]-[^\W_]|[^\W_]|[ .,;:_\n]|\\[dDwWsS])+\])"
_BOUNDED = regex.compile(rf"(?:\(\?i\))?{_ATOM}+(?:\|{_ATOM}+)*")
_PLAIN = regex.compile("x").flags
_PROBES = ("a", "A", "0", " ", "_", "-", ".", "\n", "ab", "a ", "a1")

Found = TypeVar("Found")
Tokens = Sequence[str]
"""The text that each token adds; empty for a part of a character."""


@lru_cache(maxsize=256)
def compile_regex(pattern: str) -> "regex.Pattern[str]":
    """Compile and try a pattern on texts that make a slow one take forever.

    Raises:
        ValueError: the pattern is invalid, or takes too long; the message is one clause.
    """
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"'{pattern}' is no regular expression ({error})") from None
    letters = {letter for letter in pattern if letter.isprintable()}
    for probe in sorted(letters.union(_PROBES)):
        try:
            _find(compiled, probe * 60 + "\0")
        except TimeoutError:
            raise ValueError(
                f"the regular expression '{pattern}' can take forever; write it without nested or "
                "overlapping repetition"
            ) from None
    return compiled


@lru_cache(maxsize=256)
def literal(text: str) -> "regex.Pattern[str]":
    """A pattern that matches a text as it stands."""
    return regex.compile(regex.escape(text))


class TokenText:
    """The text of one sequence as it grows, and where in it each token lies."""

    def __init__(self, prompt: Tokens) -> None:
        self._text = "".join(prompt)
        self._prompt = list(prompt)
        self._last = 0
        self._begins: dict[regex.Pattern[str], int] = {}

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt."""
        return len(self._prompt)

    def positions(self, pattern: "regex.Pattern[str]") -> tuple[int, ...]:
        """Positions of the prompt tokens that a match overlaps."""
        spans = (match.span() for match in self._matches(pattern, "".join(self._prompt)))
        matches = [(start, stop) for start, stop in spans if stop > start]
        found, offset, current = [], 0, 0
        for position, text in enumerate(self._prompt):
            start, stop = offset, offset + max(len(text), 1)
            while current < len(matches) and matches[current][1] <= start:
                current += 1
            if current < len(matches) and matches[current][0] < stop:
                found.append(position)
            offset += len(text)
        return tuple(found)

    def add(self, token: str) -> None:
        """Take in the text of a generated token."""
        self._last = len(token)
        self._text += token

    def last_matches(self, pattern: "regex.Pattern[str]") -> bool:
        """Whether a match overlaps the token that came last."""
        if not self._last:
            return False
        start = len(self._text) - self._last
        if _is_of_one_character(pattern):
            return pattern.search(self._text, start) is not None
        if _is_bounded(pattern):
            return self._bounded_matches(pattern, start)
        for match in reversed(self._matches(pattern, self._text)):
            if match.end() <= start:
                return False
            if match.end() > match.start():
                return True
        return False

    def _bounded_matches(self, pattern: "regex.Pattern[str]", start: int) -> bool:
        """Whether a match overlaps what follows `start`, from where the last search was certain.

        What is found at a place hangs on no more characters than the pattern has, and one on either
        side: what lies further back from the end can be found no other way any more.
        """
        begin = self._begins.get(pattern, 0)
        spans = [match.span() for match in pattern.finditer(self._text, begin)]
        certain = len(self._text) - len(pattern.pattern) - 1  # the last such place
        ends = [stop for first, stop in spans if first <= certain]
        self._begins[pattern] = max(begin, certain + 1, *ends[-1:])
        return any(stop > max(first, start) for first, stop in spans)

    def _matches(self, pattern: "regex.Pattern[str]", text: str) -> "list[regex.Match[str]]":
        try:
            return _find(pattern, text)
        except TimeoutError:
            raise PlanError(
                f"The regular expression '{pattern.pattern}' takes more than {_SECONDS:g} s of "
                "computing on this text; write it without nested or overlapping repetition."
            ) from None


@lru_cache(maxsize=256)
def _is_of_one_character(pattern: "regex.Pattern[str]") -> bool:
    r"""Whether it matches each character of some kind, or each run of them: `[aeiou]`, `\d+`.

    Such a match lies within a token or does not overlap it, whatever stands before: there is no need
    to search the whole text again after every token.
    """
    return not pattern.flags & ~_PLAIN and _ONE_CHARACTER.fullmatch(pattern.pattern) is not None


@lru_cache(maxsize=256)
def _is_bounded(pattern: "regex.Pattern[str]") -> bool:
    r"""Whether it has no repetition, group or look around but `\b`: `SELECT|FROM`, `\bI[nf]\b`.

    Each of its characters then stands for at most one of the text.
    """
    known = _PLAIN | regex.IGNORECASE
    return not pattern.flags & ~known and _BOUNDED.fullmatch(pattern.pattern) is not None


def matches_whole(pattern: str, text: str) -> bool:
    """Whether a pattern matches all of a text. Raises ValueError where it is none, or takes forever."""
    compiled = compile_regex(pattern)
    try:
        return _timed(lambda limit: compiled.fullmatch(text, timeout=limit)) is not None
    except TimeoutError:
        raise ValueError(f"the regular expression '{pattern}' can take forever") from None


def _find(pattern: "regex.Pattern[str]", text: str) -> "list[regex.Match[str]]":
    """All matches, empty ones too. Raises TimeoutError."""
    return _timed(lambda limit: list(pattern.finditer(text, timeout=limit)))


def _timed(search: Callable[[float], Found]) -> Found:
    """Search within the seconds there are. Raises TimeoutError.

    The limit of `regex` counts what all threads of the process compute. A search that it ends
    before this thread has had its own seconds is begun again with twice as many.
    """
    limit = _SECONDS
    while True:
        began = time.thread_time()
        try:
            return search(limit)
        except TimeoutError:
            if time.thread_time() - began >= _SECONDS:
                raise
            limit *= 2
