"""TokenIds: texts become token ids, and no more of a text is tokenised than a model can read."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.errors import ContextLengthError, TextError
from lmoe_studio.text_reader import TextReader

_COUNTED = 100_000
"""Characters that are tokenised in no time, so that the tokens of a text that long are counted."""


class TokenIds:
    """Encodes texts for one model, as training does.

    A token stands for no more characters than the longest of the vocabulary has. So the length of a
    text says how many tokens it has at least, and one of many megabytes need not be tokenised.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._reader = TextReader(tokenizer)

    def whole(self, text: str, *, new_tokens: int = 0) -> list[int]:
        """All tokens of a text, with those that the tokenizer puts around it.

        Args:
            text: the text.
            new_tokens: how many more are to be written after it.

        Raises:
            TextError: it has none.
            ContextLengthError: together they are more than the model reads.
        """
        return self._within(text, self._reader.ids, new_tokens)

    def continuing(self, text: str) -> list[int]:
        """All tokens of a text that goes on after another.

        Raises:
            TextError: it has none.
            ContextLengthError: they are more than the model reads.
        """
        return self._within(text, self._reader.continuing, 0)

    def first(self, text: str, count: int) -> list[int]:
        """The first tokens of a text, however long it is."""
        most = max(_COUNTED, count * self._longest)
        return self._reader.ids(text[:most])[:count]

    def first_of_chat(self, turns: Sequence[tuple[str, str]], count: int) -> list[int]:
        """The first tokens of a conversation in the chat template.

        Args:
            turns: (role, text) of each.
            count: at most so many.

        Raises:
            TextError: the template refuses it.
        """
        text = self._reader.chat([{"role": role, "content": content} for role, content in turns])
        return self._reader.ids(text, special=False)[:count]

    def asked(self, prompt: str, *, new_tokens: int = 0) -> list[int]:
        """All tokens of a prompt in the chat template, up to where the assistant is to speak.

        Raises:
            TextError: the template refuses it, or makes nothing of it.
            ContextLengthError: see `whole`.
        """
        text = self._reader.chat([{"role": "user", "content": prompt}], to_answer=True)
        return self._within(text, partial(self._reader.ids, special=False), new_tokens)

    def _within(self, text: str, read: Callable[[str], list[int]], new_tokens: int) -> list[int]:
        limit = self._context_length
        if len(text) > max(_COUNTED, limit * self._longest):
            least = -(-len(text) // self._longest)
            raise ContextLengthError(least, limit, new_tokens, at_least=True)
        ids = read(text)
        if not ids:
            raise TextError("The model's tokenizer makes no token of the text; give it another.")
        if len(ids) + new_tokens > limit:
            raise ContextLengthError(len(ids), limit, new_tokens)
        return ids

    @cached_property
    def _longest(self) -> int:
        """Characters of the longest token; those of a byte-level vocabulary have one a byte."""
        return max(map(len, self._tokenizer.get_vocab()), default=1)
