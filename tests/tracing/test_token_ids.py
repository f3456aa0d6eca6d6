"""Texts to token ids: no more of a text is tokenised than a model can read."""

import pytest
from hypothesis import given, settings, strategies as st
from tiny_models import make_tiny_studio, make_tiny_tokenizer

from lmoe_studio.errors import ContextLengthError, TextError
from lmoe_studio.text_reader import TextReader
from lmoe_studio.tracing.token_ids import TokenIds

SPECIAL = len("<pad>")  # the longest token of the tiny vocabulary


class Watched(TextReader):
    """A reader that notes how many characters it was given."""

    def __init__(self):
        super().__init__(make_tiny_tokenizer())
        self.most = 0

    def cut(self, text, cuts, **options):
        self.most = max(self.most, len(text))
        return super().cut(text, cuts, **options)


def watched_ids(context_length):
    watched, ids = Watched(), TokenIds(make_tiny_tokenizer(), context_length)
    ids._reader = watched
    return watched, ids


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=40), st.integers(1, 50))
def test_the_first_tokens_are_those_of_the_whole(text, count):
    tokenizer = make_tiny_tokenizer()
    whole = tokenizer(text.encode("utf-8", "replace").decode()).input_ids
    ids = TokenIds(tokenizer, 1000)
    assert ids.whole(text) == whole
    assert ids.first(text, count) == whole[:count]


def test_a_text_that_must_be_too_long_is_refused_without_the_tokenizer():
    watched, ids = watched_ids(128)
    with pytest.raises(ContextLengthError, match=r"has at least 200,000 tokens and .* most 128;"):
        ids.whole("x" * (SPECIAL * 200_000))
    with pytest.raises(ContextLengthError, match=r"at least 20,001 tokens and 7 .*; shorten it"):
        ids.whole("x" * 100_001, new_tokens=7)
    assert watched.most == 0
    assert len(ids.first("x" * 10**7, 100)) == 100
    assert watched.most == 100_000
    with pytest.raises(ContextLengthError, match="has 100,000 tokens"):
        ids.whole("x" * 100_000)


def test_a_model_that_reads_much_is_given_much():
    watched, ids = watched_ids(10**6)
    assert len(ids.whole("x" * 200_000)) == 200_000
    assert len(ids.first("x" * 300_000, 50_000)) == 50_000
    assert watched.most == SPECIAL * 50_000


def test_a_text_that_may_fit_is_counted():
    ids = TokenIds(make_tiny_tokenizer(), 128)
    assert len(ids.whole("x" * 128)) == 128
    with pytest.raises(ContextLengthError, match="has 129 tokens") as caught:
        ids.whole("x" * 129)
    assert (caught.value.tokens, caught.value.count) == (129, "129")


def test_every_verb_refuses_or_cuts_a_text_of_megabytes_at_once(tmp_path):
    studio = make_tiny_studio()
    watched = Watched()
    for holder in (studio._ids, studio._author._ids):
        holder._reader = watched
    text = "x" * 1_000_000
    with pytest.raises(ContextLengthError, match="at least 200,000"):
        studio.trace(text)
    with pytest.raises(ContextLengthError, match="at least 200,000"):
        studio.generate(text, max_new_tokens=1)
    with pytest.raises(ContextLengthError, match="at least 200,000"):
        studio.compare("x", {"own": None}, reference=text, max_new_tokens=1)
    assert len(studio.trace(text, max_tokens=100)) == 100
    run = studio.trace_corpus([text], out=tmp_path)
    assert (run.tokens, run.cut) == (128, 1)
    assert watched.most <= 100_000


def test_a_chat_template_that_refuses_a_prompt_is_one_sentence():
    studio = make_tiny_studio()
    studio.tokenizer.chat_template = "{{ raise_exception('system first') }}"
    with pytest.raises(
        TextError, match=r"refuses the conversation \(TemplateError: system first\)"
    ):
        studio.generate("x", chat=True, max_new_tokens=1)


def test_what_is_typed_is_text_to_every_verb(tmp_path):
    studio = make_tiny_studio()
    studio.tokenizer.chat_template = "{% for m in messages %}<s>{{ m.content }}</s>:{% endfor %}"
    text = "price <s>500</s> now"
    assert "".join(studio.trace(text).tokens) == text
    written = studio.generate(text, max_new_tokens=1, trace=True).trace
    assert "".join(written.tokens[: len(text)]) == text
    asked = studio.generate(text, chat=True, max_new_tokens=1, trace=True).trace
    assert asked.special[: len(text) + 2].sum() == 2
    run = studio.trace_corpus([text], out=tmp_path)
    assert run.tokens == len(text)
