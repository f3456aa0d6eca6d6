"""Rows become examples: what is read is what is read in use, and what is learned is known exactly."""

import itertools
import json
from collections import Counter

import pytest
from tiny_models import make_metaspace_tokenizer, make_tiny_tokenizer
from transformers import ByT5Tokenizer

from lmoe_studio.errors import DataError
from lmoe_studio.training.examples import IGNORED, Examples, text_rows
from lmoe_studio.training.packing import Packer

ADDED = [(False, False), (True, False), (False, True), (True, True)]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def row_of(tmp_path, **values):
    (tmp_path / "row.jsonl").write_text(json.dumps(values))
    [row] = text_rows(tmp_path / "row.jsonl")
    return row


def learned(example):
    return [token for token in example.labels[1:] if token != IGNORED]


@pytest.mark.parametrize(("bos", "eos"), ADDED)
def test_a_text_begins_and_ends_as_in_use(tmp_path, bos, eos):
    tokenizer = make_tiny_tokenizer(bos=bos, eos=eos)
    example = Examples(tokenizer, "plain").of(row_of(tmp_path, text="abc"))
    assert tokenizer.decode(example.ids) == f"{'<s>' * bos}abc</s>"
    assert example.ids[0] == tokenizer("abc")["input_ids"][0]
    assert tokenizer.decode(learned(example)) == ("abc</s>" if bos else "bc</s>")


@pytest.mark.parametrize(("bos", "eos"), ADDED)
def test_a_pair_begins_and_ends_as_in_use(tmp_path, bos, eos):
    tokenizer = make_tiny_tokenizer(bos=bos, eos=eos)
    example = Examples(tokenizer, "plain").of(row_of(tmp_path, prompt="Q", response="A"))
    assert tokenizer.decode(example.ids) == f"{'<s>' * bos}Q\nA</s>"
    assert tokenizer.decode(learned(example)) == "A</s>"


def test_a_tokenizer_without_an_end_of_text_ends_none(tmp_path):
    tokenizer = make_tiny_tokenizer()
    tokenizer.eos_token = None
    example = Examples(tokenizer, "plain").of(row_of(tmp_path, text="abc"))
    assert tokenizer.decode(example.ids) == "abc"


def test_a_pair_is_read_as_one_text(tmp_path):
    tokenizer = make_metaspace_tokenizer()
    example = Examples(tokenizer, "plain").of(row_of(tmp_path, prompt="Q:a", response="A:b"))
    whole = tokenizer("Q:a\nA:b")["input_ids"]
    assert example.ids == [*whole, tokenizer.eos_token_id]
    assert tokenizer.convert_ids_to_tokens(learned(example)) == ["A", ":", "b", "</s>"]


def test_a_tokenizer_written_in_python_learns_the_response_too(tmp_path):
    tokenizer = ByT5Tokenizer()
    example = Examples(tokenizer, "plain").of(row_of(tmp_path, prompt="Q:a", response="ä b"))
    assert tokenizer.decode(example.ids) == "Q:a\nä b</s>"
    assert tokenizer.decode(learned(example)) == "ä b</s>"


@pytest.mark.parametrize("bos", [False, True])
def test_a_conversation_is_read_as_its_template_says(tmp_path, bos):
    tokenizer = make_tiny_tokenizer(bos=bos)
    tokenizer.chat_template = TEMPLATE
    turns = [
        {"role": role, "content": text}
        for role, text in [("assistant", "0 hello"), ("user", "</s>?"), ("assistant", "no</s>")]
    ]
    example = Examples(tokenizer, "plain").of(row_of(tmp_path, messages=turns))
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    assert tokenizer.decode(example.ids) == text
    assert example.ids.count(1) == 1
    assert example.ids.count(2) == 3
    assert tokenizer.decode(learned(example)) == "0 hello</s>no</s></s>"


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages[0].role == 'assistant' %}{{ raise_exception('user first') }}{% endif %}",
        "{{ messages[5].content }}", "{{ 1 / 0 }}",
    ],
)  # fmt: skip
def test_a_template_that_refuses_a_conversation_names_the_line(tmp_path, template):
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = template
    turns = [{"role": role, "content": "x"} for role in ("assistant", "user", "assistant")]
    with pytest.raises(DataError, match=r"row.jsonl, line 1: .* refuses the conversation"):
        Examples(tokenizer, "chat").of(row_of(tmp_path, messages=turns))


NOTHING = (None, "", "  ", float("nan"))
FILLED = {
    "text": {"text": "T"},
    "pair": {"prompt": "Q", "response": "A"},
    "messages": {"messages": [{"role": "assistant", "content": "A"}]},
}


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize("kind", FILLED)
def test_columns_of_united_files_that_are_empty_are_passed_over(tmp_path, kind, nothing):
    empty = {"text": nothing, "prompt": nothing, "response": nothing, "messages": None}
    for columns in (list(empty), list(empty)[::-1]):
        values = {name: FILLED[kind].get(name, empty[name]) for name in columns}
        assert row_of(tmp_path, **values).kind == kind
    assert row_of(tmp_path, **empty | {"messages": []}).is_blank
    assert row_of(tmp_path, **empty).is_blank


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(FILLED, 2)))
def test_a_row_of_two_kinds_is_refused(tmp_path, one, other):
    with pytest.raises(DataError, match=r"line 1: `\w+` and `\w+` are both filled"):
        row_of(tmp_path, **FILLED[one], **FILLED[other])


def test_what_a_text_is_cut_off_from_begins_as_a_text_does(tmp_path):
    tokenizer = make_tiny_tokenizer(bos=True)
    rows = [json.dumps({"text": text}) + "\n" for text in ("a" * 25, "b" * 12)]
    (tmp_path / "a.jsonl").write_text("".join(rows))
    packer = Packer(Examples(tokenizer, "plain"), 10, Counter())
    sequences = list(packer._sequences(text_rows(tmp_path / "a.jsonl"), Counter()))
    assert [tokenizer.decode(one.ids) for one in sequences] == [
        "<s>" + "a" * 9, "<s>" + "a" * 9, "<s>aaaaaaa</s><s>", "<s>" + "b" * 9, "<s>bbb</s>",
    ]  # fmt: skip
    # A sequence that goes on in a text foretells it from its second letter on.
    assert [one.learned for one in sequences] == [9, 8, 7, 8, 3]
