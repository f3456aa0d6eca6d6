"""A conversation that somebody pastes as JSON, as the text that the model reads of one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmoe_studio.plain_data import PlainDataError, read_json
from lmoe_studio.ui import panels

if TYPE_CHECKING:
    from lmoe_studio.studio import Studio

_MOST_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class ReadAs:
    """The text to run on, and what to say of it; nothing where it is what was typed."""

    text: str
    note: str = ""


def read_as(typed: str, studio: "Studio") -> ReadAs:
    """Messages as JSON in the model's chat template; any other text as it is."""
    messages = messages_in(typed)
    if messages is None:
        return ReadAs(typed)
    found = f"This is a conversation of {len(messages)} message{'s' * (len(messages) > 1)}"
    tokenizer: Any = studio.tokenizer
    if not tokenizer.chat_template:
        return ReadAs(
            typed, _note(f"{found}; this model has no chat template, so it is read as it is.")
        )
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception as error:  # templates are programs
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        return ReadAs(typed, _note(f"{found} that the chat template does not take ({why[:200]}); it is read as it is."))  # fmt: skip
    start = tokenizer.bos_token or ""  # which reading a text adds
    return ReadAs(text.removeprefix(start) if _adds(tokenizer, start) else text,
                  _note(f"{found}; it is read in the model's chat template."))  # fmt: skip


def messages_in(typed: str) -> list[dict[str, str]] | None:
    """The messages of a JSON list of them, or of an object with `messages`; None for any other text."""
    if len(typed) > _MOST_CHARACTERS or typed.lstrip("\ufeff \n\t")[:1] not in ("[", "{"):
        return None
    try:
        found = read_json(typed.strip("\ufeff \n\t"))
    except PlainDataError:
        return None
    if isinstance(found, dict):
        found = found.get("messages")
    if not isinstance(found, list) or not found:
        return None
    is_message = all(
        isinstance(one, dict) and isinstance(one.get("role"), str)
        and isinstance(one.get("content"), str) for one in found
    )  # fmt: skip
    return (
        [{"role": one["role"], "content": one["content"]} for one in found] if is_message else None
    )


def _adds(tokenizer: Any, start: str) -> bool:
    return bool(start) and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def _note(text: str) -> str:
    return panels.panel("note", "A conversation", text)
