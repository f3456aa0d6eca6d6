"""The past of a text: what was read and written already, where a call goes on after it.

The past stays as it was, whatever plan comes now: its tokens are read again under the routing weights
that their trace holds, so that going on is the same as never having stopped.
"""

import numpy as np

from lmoe_studio.errors import ConfigError, ContextLengthError, PlanError, TextError
from lmoe_studio.generation.options import GenerationOptions
from lmoe_studio.generation.text import Generation
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.tracing.preview import refuse_foreign
from lmoe_studio.tracing.records import RoutingTrace
from lmoe_studio.tracing.token_texts import TokenTexts

Prompt = str | Generation | RoutingTrace
"""What a text begins with: a prompt, or a text to go on after."""


def past_of(prompt: Prompt) -> RoutingTrace | None:
    """The text to go on after; None for a prompt. Raises TextError for one without its routing."""
    if isinstance(prompt, Generation):
        if prompt.trace is None:
            raise TextError(
                "The text to go on after has no trace, so how it was routed is not known; write it "
                "with trace=True, or give its text as the prompt."
            )
        return prompt.trace
    return prompt if isinstance(prompt, RoutingTrace) else None


def check_past(
    past: RoutingTrace,
    model: MixtureModel,
    options: GenerationOptions,
    *,
    end_ids: frozenset[int],
    context_length: int,
) -> None:
    """Refuse a text that cannot be gone on after.

    Raises:
        BankMismatchError: another bank or router made it.
        TextError: it is empty, has ended, or is no text of this model.
        ContextLengthError: with the new tokens it is more than the model can read.
        ConfigError: contributions are asked for, and it has none.
        PlanError: a blend is folded, and it was written under other weights.
    """
    refuse_foreign(past, model)
    ids, vocabulary = past.token_ids, model.base.config.get_text_config().vocab_size
    if not len(ids):
        raise TextError("The text to go on after is empty; begin with a prompt.")
    if not 0 <= ids.min() <= ids.max() < vocabulary:
        raise TextError(
            f"The text to go on after holds token {ids.max():,}, and this model knows tokens 0 to "
            f"{vocabulary - 1:,}; trace the text again."
        )
    if past.generated[-1] and int(ids[-1]) in end_ids:
        raise TextError("The text has ended: the model wrote its end mark last; begin another one.")
    if len(ids) + options.max_new_tokens > context_length:
        raise ContextLengthError(len(ids), context_length, options.max_new_tokens)
    if options.contributions and past.contributions is None:
        raise ConfigError(
            "contributions: the text to go on after was written without them; leave them out."
        )
    folded = model.folded
    if folded is not None and not np.array_equal(
        past.routing_weights, np.broadcast_to(folded.weights.cpu(), past.routing_weights.shape)
    ):
        raise PlanError(
            "A blend is folded into the base model's weights, and the text to go on after was "
            "written under other ones; unfold it first."
        )


def split_past(past: RoutingTrace) -> tuple[list[int], list[int]]:
    """Its tokens: those of the prompt, and those that were written."""
    ids, count = past.token_ids.tolist(), int(past.generated.sum())
    return ids[: len(ids) - count], ids[len(ids) - count :]


def prompt_text(prompt: Prompt, texts: TokenTexts) -> str:
    """What the text began with."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Generation):
        return prompt.prompt
    special = frozenset(texts.special_ids)
    return texts.text([token for token in split_past(prompt)[0] if token not in special])
