"""A pasted conversation: JSON of messages is read in the chat template, any other text as it is."""

import json

import pytest
from tiny_models import make_tiny_studio

from lmoe_studio.ui.conversation import messages_in, read_as
from lmoe_studio.ui.outcome import trace_text
from lmoe_studio.ui.source import SourceState

TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def studio():
    studio = make_tiny_studio()
    studio.tokenizer.chat_template = TEMPLATE
    return studio


@pytest.mark.parametrize(
    "text", [json.dumps(TALK), "\ufeff\n" + json.dumps({"messages": TALK, "id": 3})]
)
def test_json_of_messages_is_read_as_the_model_reads_a_conversation(studio, text):
    outcome = trace_text(SourceState(studio=studio), text)
    assert outcome.trace is not None
    assert outcome.trace.text == "[user]hi[assistant]yo"
    assert "conversation of 2 messages; it is read in the model" in outcome.notice


@pytest.mark.parametrize(
    "text",
    [
        "User: hi\nAssistant: yo", "<|im_start|>user\nhi<|im_end|>\n", "[1, 2]", "{}", "[]", "[", "{" * 999,
        '{"messages": "x"}', '[{"role": "user"}]', '[{"role": 1, "content": "x"}]', "",
    ],
)  # fmt: skip
def test_any_other_text_is_read_as_it_is(studio, text):
    assert messages_in(text) is None
    assert read_as(text, studio).text == text


def test_where_the_template_cannot_it_is_said(studio):
    text = json.dumps(TALK)
    studio.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    try:
        given = read_as(text, studio)
        assert given.text == text
        assert "roles must alternate" in given.note
        studio.tokenizer.chat_template = None
        assert "has no chat template" in read_as(text, studio).note
    finally:
        studio.tokenizer.chat_template = TEMPLATE
