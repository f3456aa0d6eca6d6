"""TextReader: texts and conversations become token ids, the same in training as in use.

What a person gives is text: a special token that is written in it (`<s>`, `<|im_end|>`) is read as
its characters. Control tokens come from the tokenizer, which may put some around a text, and from its
chat template.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any, cast

from transformers import AddedToken
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.errors import TextError

# Noncharacters of Unicode, which no text has: they mark special tokens while a template is filled in.
_TYPED, _OWN, _END = "\ufdd0", "\ufdd1", "\ufdd2"
_RESERVED = re.compile(f"[{_TYPED}{_OWN}{_END}]")
_TYPED_MARK = re.compile(f"{_TYPED}(\\d+){_END}")
_OWN_MARK = re.compile(f"{_OWN}(\\d+){_END}")


class ChatText(str):
    """A conversation in a chat template, whose own special tokens are marked."""

    __slots__ = ()


class TextReader:
    """Reads with one tokenizer. Lone surrogates, which stop a tokenizer, are replaced."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """The tokens of a text.

        Args:
            text: what a person has written, or what `chat` gives.
            special: with the tokens that the tokenizer puts around a text; a conversation has its own.
        """
        return self.cut(text, (), special=special)[0]

    def continuing(self, text: str) -> list[int]:
        """The tokens of a text that goes on after another.

        It is read after a line break: at its beginning some tokenizers would put a blank before it.
        """
        ids, [place] = self.cut(f"\n{text}", [1], special=False)
        if ids[:place] == self.ids("\n", special=False):
            return ids[place:]
        return self.ids(text, special=False)  # its own line breaks belong together with that one

    def cut(
        self, text: str, cuts: Sequence[int], *, special: bool = True
    ) -> tuple[list[int], list[int]]:
        """The tokens of a text, and for each cut how many of them stand before it.

        The text is read as one: a token that reaches over a cut stands after it.

        Args:
            text: see `ids`.
            cuts: places in the text, in characters.
            special: see `ids`.
        """
        if not isinstance(text, ChatText):
            text = _RESERVED.sub("\ufffd", text)
        text = text.encode("utf-8", "replace").decode()
        if not self._tokenizer.is_fast:
            ids = self._ids_without_offsets(text, special)
            parts = (self._ids_without_offsets(text[:cut], special) for cut in cuts)
            return ids, [shared_length(part, ids) for part in parts]
        read = self._plain(
            text,
            add_special_tokens=special,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        found: list[int] = read["input_ids"]
        ids = [self._own_ids.get(token, token) for token in found]
        around = sum(1 for _ in takewhile(bool, reversed(read["special_tokens_mask"])))
        ends = [end for _, end in read["offset_mapping"]]
        last = len(ids) - around
        return ids, [next((i for i in range(last) if ends[i] > cut), last) for cut in cuts]

    def chat(self, turns: Sequence[Mapping[str, str]], *, to_answer: bool = False) -> ChatText:
        """A conversation in the base model's chat template, for `ids(…, special=False)`.

        Args:
            turns: each with `role` and `content`.
            to_answer: end where the assistant is to speak.

        Raises:
            TextError: there is no template, or it refuses the conversation.
        """
        if not self._tokenizer.chat_template:
            raise TextError("The base model has no chat template for conversations.")
        typed = [{**turn, "content": self._typed(turn["content"])} for turn in turns]
        try:
            text = self._tokenizer.apply_chat_template(
                typed, add_generation_prompt=to_answer, tokenize=False
            )
        except Exception as error:  # a template is a program of its own, and may fail with anything
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            raise TextError(
                "The base model's chat template refuses the conversation "
                f"({type(error).__name__}: {reason})."
            ) from None
        marked = self._special_pattern.sub(lambda found: self._mark(_OWN, found[0]), str(text))
        return ChatText(_TYPED_MARK.sub(lambda mark: self._special[int(mark[1])].content, marked))

    def special_tokens(self, text: str) -> list[str]:
        """The special tokens that are written in a text, and read as their characters."""
        return self._special_pattern.findall(text)

    @cached_property
    def around(self) -> tuple[list[int], list[int]]:
        """The tokens that the tokenizer puts before and after a text."""
        ids, bare = self.ids("a"), self.ids("a", special=False)
        places = range(len(ids) - len(bare) + 1)
        start = next((i for i in places if ids[i : i + len(bare)] == bare), 0)
        return ids[:start], ids[start + len(bare) :]

    def _typed(self, text: str) -> str:
        """A text with marks in the place of special tokens, so that a template's can be told."""
        text = _RESERVED.sub("\ufffd", text)
        return self._special_pattern.sub(lambda found: self._mark(_TYPED, found[0]), text)

    def _mark(self, kind: str, token: str) -> str:
        return f"{kind}{self._numbers[token]}{_END}"

    @cached_property
    def _special(self) -> list[AddedToken]:
        named = set(self._tokenizer.all_special_ids)
        added: dict[int, Any] = self._tokenizer.added_tokens_decoder
        return [token for number, token in added.items() if token.special or number in named]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {token.content: number for number, token in enumerate(self._special)}

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._numbers, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    @cached_property
    def _plain(self) -> PreTrainedTokenizerBase:
        """A copy that knows no special tokens but those that a chat template has put there."""
        plain = copy.deepcopy(self._tokenizer)
        plain.split_special_tokens = True
        marks = [
            AddedToken(
                f"{_OWN}{number}{_END}",
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                single_word=token.single_word,
                normalized=False,
            )
            for number, token in enumerate(self._special)
        ]
        plain.add_tokens(marks)
        return plain

    @cached_property
    def _own_ids(self) -> dict[int, int]:
        """The tokens that marks stand for."""
        tokenizer, plain = self._tokenizer, self._plain
        return {
            _id_of(plain, f"{_OWN}{number}{_END}"): _id_of(tokenizer, token.content)
            for number, token in enumerate(self._special)
        }

    def _ids_without_offsets(self, text: str, special: bool) -> list[int]:
        """With a tokenizer that is written in Python."""
        pieces = _OWN_MARK.split(text)  # text, number, text, …
        if not any(self.special_tokens(piece) for piece in pieces[::2]):
            whole = _OWN_MARK.sub(lambda mark: self._special[int(mark[1])].content, text)
            return list(self._tokenizer(whole, add_special_tokens=special)["input_ids"])
        ids, tokenizer = list[int](), cast("Any", self._tokenizer)
        for place, piece in enumerate(pieces):
            if place % 2:
                ids.append(_id_of(self._tokenizer, self._special[int(piece)].content))
            elif piece:
                tokens = tokenizer.tokenize(piece, split_special_tokens=True)
                ids += tokenizer.convert_tokens_to_ids(tokens)
        return tokenizer.build_inputs_with_special_tokens(ids) if special else ids


def shared_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How far two sequences are the same from their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _id_of(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    found: Any = tokenizer.convert_tokens_to_ids(token)
    return int(found)
