"""Which columns make a row, and what of it is learned."""

import pytest

from lmoe_studio.errors import DataError
from lmoe_studio.sources.rows import text_row

CHAT = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
SHAREGPT = [
    {"from": "system", "value": "S"},
    *({"from": f, "value": v} for f, v in (("human", "Q"), ("gpt", "A"))),
]
QA = (("user", "Q"), ("assistant", "A"))


@pytest.mark.parametrize(
    ("values", "kind", "parts", "columns"),
    [
        ({"text": "T", "id": 1}, "text", (("text", "T"),), ("text",)),
        ({"prompt": "Q", "response": "A"}, "pair", QA, ("prompt", "response")),
        ({"completion": "A", "prompt": "Q"}, "pair", QA, ("prompt", "completion")),
        ({"instruction": "Q", "output": "A"}, "pair", QA, ("instruction", "output")),
        (
            {"instruction": "Q", "input": "I", "output": "A"}, "pair",
            (("user", "Q\n\nI"), ("assistant", "A")), ("instruction", "input", "output"),
        ),
        (
            {"instruction": "Q", "input": "", "output": "A", "text": "### Q\n### A"}, "pair", QA,
            ("instruction", "input", "output"),
        ),
        ({"messages": CHAT, "prompt": "Q"}, "messages", QA, ("messages",)),
        ({"conversations": SHAREGPT}, "messages", (("system", "S"), *QA), ("conversations",)),
        ({"conversations": CHAT}, "messages", QA, ("conversations",)),
        ({"conversations": {"from": ["human", "gpt"], "value": ["Q", "A"]}}, "messages", QA, ("conversations",)),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, "messages", QA, ("prompt", "completion")),
        ({"prompt": [], "completion": CHAT[1:]}, "messages", QA[1:], ("prompt", "completion")),
    ],
)  # fmt: skip
def test_a_row_is_found_by_its_columns(values, kind, parts, columns):
    row = text_row(values, "row 1")
    assert (row.kind, row.parts, set(row.columns)) == (kind, parts, set(columns))


def test_of_a_prompt_of_messages_nothing_is_learned_whoever_speaks():
    row = text_row({"prompt": CHAT * 2, "completion": CHAT[1:]}, "row 1")
    assert (row.prompts, len(row.parts)) == (4, 5)
    assert text_row({"prompt": CHAT, "completion": []}, "row 1").is_blank


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"question": "Q", "answer": "A"}, "row 1: expected .* got question, answer"),
        ({"prompt": "Q", "chosen": "A"}, "got prompt, chosen"),
        ({}, "got nothing"),
        ({"text": "T", "prompt": "Q", "completion": "A"}, "`text` and `completion` are both filled.*text, prompt, completion"),
        ({"prompt": "Q", "response": "A", "completion": "B"}, "`response` and `completion` are both"),
        ({"conversations": [{"from": "tool", "value": "x"}]}, "message 1: .* got from 'tool'"),
        ({"conversations": "x"}, "'conversations' is str"),
        ({"conversations": {"from": "human"}}, "'conversations' is dict"),
    ],
)  # fmt: skip
def test_columns_that_make_no_row_or_several_are_refused_with_their_names(values, message):
    with pytest.raises(DataError, match=message):
        text_row(values, "row 1")
