"""Which token ends a turn of a chat, as the tokenizer's own template says."""

from jinja2 import TemplateError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

_SAID = "answered"


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the chat template puts after an answer; None where there is none."""
    if not tokenizer.chat_template:
        return None
    messages = [{"role": "user", "content": "asked"}, {"role": "assistant", "content": _SAID}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except (TemplateError, ValueError, TypeError):  # a template of another kind of chat
        return None
    after = text.rpartition(_SAID)[2].lstrip()
    ids = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
    return ids[0] if ids and ids[0] in tokenizer.all_special_ids else None
