"""Every error that a person can cause, drawn as a tree.

LMoEError                 catch this to catch them all
├── BaseModelError        the base model cannot be had or is of a kind we cannot route
├── BankError             no such bank, or its folder is damaged
│   ├── BaseMismatchError the bank was made for another base model
│   └── BankMismatchError a trace was made with another bank
├── AdapterError          a LoRA adapter cannot become an expert
├── PlanError             a routing plan asks for something this bank cannot do
├── OverflowedError       the model's numbers are not finite any more
├── TextError             nothing to run on
│   └── ContextLengthError  more tokens than the model can read
├── ConfigError           an option is unknown, missing or out of range
│   └── ResumeError       the unfinished run was begun with other options, data or base
├── DataError             a data file cannot be read or holds nothing to train on
├── TrainingError         training cannot go on: no finite loss, or no memory left
├── TrainingStopped       training was told to stop, and saved
├── JobError              no such job, or it cannot be done in its state
└── StorageError          a file cannot be written or read back

A message is one sentence that says which thing, what came, what was expected and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class LMoEError(Exception):
    """Something a caller can put right; the message says how."""


class BaseModelError(LMoEError):
    """The base model cannot be had, or is of a kind that cannot be routed."""


class BankError(LMoEError):
    """No such bank, or its folder is damaged."""


class BaseMismatchError(BankError):
    """The bank was made for another base model."""


class BankMismatchError(BankError):
    """A trace was made with another bank, or with this one under another router."""


class AdapterError(LMoEError):
    """A LoRA adapter cannot become an expert of this base model."""


class PlanError(LMoEError):
    """A routing plan asks for something this bank cannot do."""


class OverflowedError(LMoEError):
    """The model's numbers are not finite any more, so that they say nothing of any token."""

    def __init__(self, tokens: int) -> None:
        super().__init__(
            f"The model gave no finite scores after {tokens:,} tokens: an expert, or the weights "
            "that the router or a plan give it, are too large for the numbers it computes in; use "
            "smaller weights, or leave that expert out."
        )


class TextError(LMoEError):
    """There is nothing to run on."""


class ContextLengthError(TextError):
    """A text has more tokens than the model can read.

    Attributes:
        tokens: how many tokens the text has.
        limit: how many the model can read.
        new_tokens: how many more were to be written.
        count: the number of tokens in words: "1,234", or "at least 1,234" where the text is so long
            that it was not tokenised.
    """

    def __init__(
        self, tokens: int, limit: int, new_tokens: int = 0, *, at_least: bool = False
    ) -> None:
        count = f"at least {tokens:,}" if at_least else f"{tokens:,}"
        if new_tokens:
            room = limit - tokens
            less = f"ask for at most {room:,} new ones, or shorten it" if room > 0 else "shorten it"
            message = (
                f"The prompt has {count} tokens and {new_tokens:,} more are to be written, "
                f"together more than the {limit:,} that this model reads; {less}."
            )
        else:
            message = (
                f"The text has {count} tokens and this model reads at most {limit:,}; "
                f"shorten it, or ask for it to be cut to the first {limit:,} tokens."
            )
        super().__init__(message)
        self.new_tokens = new_tokens
        self.tokens = tokens
        self.limit = limit
        self.count = count


class ConfigError(LMoEError):
    """An option is unknown, missing or out of range."""


class ResumeError(ConfigError):
    """The unfinished run was begun with other options, data or base."""


class TrainingError(LMoEError):
    """Training cannot go on; its last good checkpoint is kept."""


class TrainingStopped(LMoEError):
    """Training was told to stop, and saved.

    Attributes:
        step: the step of the checkpoint.
    """

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(
            f"Training stopped after step {step} of {steps} and was saved; start it again to go on."
        )
        self.step = step


class JobError(LMoEError):
    """There is no such job, or it cannot be done in its state."""


class DataError(LMoEError):
    """A data file cannot be read, or holds nothing to train on."""


class HubError(LMoEError):
    """The Hugging Face hub cannot be reached, or does not have or take what was asked."""


class StorageError(LMoEError):
    """A file cannot be written or read back."""


class OtherWeightsWarning(UserWarning):
    """A bank is used on a base model of the right shapes and of other weights."""


def kind_of(value: object) -> str:
    """What came, for a message: its kind and not its content."""
    known = {"list": "a list", "tuple": "a tuple", "str": "text", "NoneType": "nothing"}
    name = type(value).__name__
    return known.get(name, f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest known one, and all of them."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    there = f"here is {', '.join(names) if names else 'nothing yet'}."
    return f"did you mean '{near[0]}'? T{there}" if near else f"t{there}"
