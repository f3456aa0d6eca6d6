"""TokenTexts: what each token adds to a text, for people to read."""

from collections.abc import Iterable

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

INCOMPLETE = "\ufffd"
"""Stands for bytes of a character that later tokens complete."""


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
        texts: list[str] = []
        context, start = 0, 0  # some tokenizers need the token before to know of a leading space
        for stop in range(1, len(ids) + 1):
            after = self._text(ids[context:stop])
            if after.endswith(INCOMPLETE) and stop - start < 4:  # UTF-8 has at most four bytes
                texts.append(INCOMPLETE)
            else:
                texts.append(after[len(self._text(ids[context:start])) :])
                context, start = start, stop
        return tuple(texts)

    def _text(self, ids: list[int]) -> str:
        if not ids:
            return ""
        return self.alone(ids[0]) if len(ids) == 1 else self._decode(ids)

    def _decode(self, ids: Iterable[int]) -> str:
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
