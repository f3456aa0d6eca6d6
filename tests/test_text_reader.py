"""Texts and conversations as token ids: nothing that is typed in becomes a control token."""

import pytest
from hypothesis import given, settings, strategies as st
from tiny_models import make_metaspace_tokenizer, make_tiny_tokenizer
from transformers import ByT5Tokenizer

from lmoe_studio.errors import TextError
from lmoe_studio.text_reader import TextReader

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<user>{{ m.content | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<pad>{% endif %}"
)
KINDS = {
    "none": make_tiny_tokenizer,
    "begin": lambda: make_tiny_tokenizer(bos=True),
    "end": lambda: make_tiny_tokenizer(eos=True),
    "both": lambda: make_tiny_tokenizer(bos=True, eos=True),
    "metaspace": make_metaspace_tokenizer,
    "python": ByT5Tokenizer,
}


CUTTING = [TextReader(KINDS["both"]()), TextReader(KINDS["python"]())]


@pytest.fixture(params=KINDS)
def tokenizer(request):
    return KINDS[request.param]()


def test_an_ordinary_text_is_read_as_the_tokenizer_reads_it(tokenizer):
    reader = TextReader(tokenizer)
    for text in ("Q: 2 + 2?\nA: 4", "", " a", "\n\n"):
        assert reader.ids(text) == tokenizer(text)["input_ids"]
        bare = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert reader.ids(text, special=False) == bare
    before, after = reader.around
    ids = tokenizer("word")["input_ids"]
    bare = tokenizer("word", add_special_tokens=False)["input_ids"]
    assert before + bare + after == ids


def test_special_tokens_that_are_typed_are_characters(tokenizer):
    reader = TextReader(tokenizer)
    text = "price <s>500</s> now<pad>"
    assert not set(reader.ids("\ufdd10\ufdd2 \ufdd11\ufdd2", special=False)) & {0, 1, 2}
    before, after = reader.around
    ids = reader.ids(text)
    inside = ids[len(before) : len(ids) - len(after)]
    assert not set(inside) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(inside).strip() == text
    assert set(reader.special_tokens(text)) == {"<s>", "</s>", "<pad>"} & set(
        tokenizer.all_special_tokens
    )


def test_of_a_conversation_only_the_template_gives_control_tokens(tokenizer):
    tokenizer.chat_template = TEMPLATE.replace("{{ bos_token }}", "<pad>")
    reader = TextReader(tokenizer)
    turns = [{"role": "user", "content": " one "}, {"role": "user", "content": "two"}]
    ids = reader.ids(reader.chat(turns, to_answer=True), special=False)
    rendered = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert ids == tokenizer(rendered, add_special_tokens=False)["input_ids"]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    assert (ids.count(end), ids.count(pad)) == (2, 2)
    turns[0]["content"] = "one</s><pad>\ufdd10\ufdd2"
    typed = reader.ids(reader.chat(turns, to_answer=True), special=False)
    assert (typed.count(end), typed.count(pad)) == (2, 2)
    assert "one</s><pad>" in tokenizer.decode(typed)


def test_a_conversation_begins_once(tokenizer):
    tokenizer.chat_template = TEMPLATE
    if tokenizer.bos_token is None:
        return
    reader = TextReader(tokenizer)
    ids = reader.ids(reader.chat([{"role": "user", "content": "x"}]), special=False)
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.bos_token_id in ids[:2]


@settings(deadline=None, max_examples=40)
@given(st.text("ab <s>/\n", max_size=12), st.text("ab <s>/\n", max_size=12))
def test_a_cut_parts_the_tokens_of_one_text(before, after):
    for reader in CUTTING:
        tokenizer = reader._tokenizer
        ids, [place] = reader.cut(before + after, [len(before)])
        assert ids == reader.ids(before + after)
        assert tokenizer.decode(ids[place:], skip_special_tokens=True) == after


def test_a_token_across_a_cut_stands_after_it():
    reader = TextReader(make_metaspace_tokenizer())
    ids, places = reader.cut("x A", [1, 2])
    assert (len(ids), places) == (4, [3, 3])  # <s> ▁ x ▁A


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('Conversation roles must alternate') }}", "{{ messages[7].content }}",
        "{{ 1 / 0 }}", "{{ nothing.at.all }}", "{% for %}", "{{ 'a' + 1 }}", "{{ messages.x() }}",
    ],
)  # fmt: skip
def test_a_template_that_fails_is_a_sentence(template):
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(TextError, match="chat template refuses the conversation") as error:
        TextReader(tokenizer).chat([{"role": "user", "content": "x"}])
    assert "\n" not in str(error.value)


def test_without_a_template_there_is_a_sentence():
    with pytest.raises(TextError, match="has no chat template"):
        TextReader(make_tiny_tokenizer()).chat([{"role": "user", "content": "x"}])


def test_what_goes_on_after_a_text_has_no_blank_before_it(tokenizer):
    reader = TextReader(tokenizer)
    for text in ("A:b", " A", "\n\nA"):
        ids = reader.continuing(text)
        assert tokenizer.decode(reader.ids("Q:a", special=False) + ids) == f"Q:a{text}"
