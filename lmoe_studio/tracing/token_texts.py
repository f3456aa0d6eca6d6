"""TokenTexts: what each token adds to a text, for people to read."""

from collections.abc import Iterable

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

INCOMPLETE = "\ufffd"
"""Stands for bytes of a character that later tokens complete."""

_MOST_HELD = 3


class TokenTexts:
    """Decodes tokens with a tokenizer, each distinct one once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._alone: dict[int, str] = {}

    @property
    def special_ids(self) -> list[int]:
        """The tokenizer's special tokens."""
        return list(self._tokenizer.all_special_ids)

    def alone(self, token: int) -> str:
        """A token's text by itself; empty for -1, no token."""
        if token < 0:
            return ""
        if token not in self._alone:
            self._alone[token] = self._decode([token])
        return self._alone[token]

    def sequence(self, ids: list[int]) -> tuple[str, ...]:
        """The text that each token adds to the text before it.

        A character spread over several tokens comes with the last of them; each token before that
        is shown as `INCOMPLETE`.
        """
        stream = TokenStream(self)
        return tuple(stream.add(token) or (INCOMPLETE if stream.held else "") for token in ids)

    def parts(self, ids: list[int], *, after: list[int] | None = None) -> list[str]:
        """The same, with nothing for the part of a character: together they are the text.

        `after`: tokens that stand before the first; some tokenizers look there for a space.
        """
        stream = TokenStream(self, after)
        return [stream.add(token) for token in ids]

    def text(self, ids: list[int]) -> str:
        """The text of some tokens."""
        if not ids:
            return ""
        return self.alone(ids[0]) if len(ids) == 1 else self._decode(ids)

    def _decode(self, ids: Iterable[int]) -> str:
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


class TokenStream:
    """The text of tokens as they come, without the part of a character that is still incomplete."""

    def __init__(self, texts: TokenTexts, before: list[int] | None = None) -> None:
        """`before`: tokens that stand before the first; some tokenizers look there for a space."""
        self.held = ""
        """Stands for the bytes of a character that is not complete yet."""
        self._texts = texts
        self._ids = list(before or [])
        self._start = len(self._ids)  # tokens before this one are only context
        self._shown = len(texts.text(self._ids))

    def add(self, token: int) -> str:
        """The text that this token adds, with what earlier ones held back."""
        self._ids.append(token)
        text = self._texts.text(self._ids)
        complete = text.rstrip(INCOMPLETE)
        # Up to three bytes can be the beginning of a character, and show as one mark or three.
        settled = max(len(complete), len(text) - _MOST_HELD)
        new, self.held = text[self._shown : settled], text[max(settled, self._shown) :]
        self._shown = max(settled, self._shown)
        if not self.held:  # this token is now the context of those that follow
            self._ids, self._start = self._ids[self._start :], len(self._ids) - self._start
            self._shown = len(self._texts.text(self._ids))
        return new
