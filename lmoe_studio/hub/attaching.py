"""attach and detach: a bank on a model that is loaded already."""

from pathlib import Path

from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.errors import BaseModelError
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.hub.causal_lm import LMoEForCausalLM
from lmoe_studio.mixture.model import attached_to


def attach(
    model: PreTrainedModel,
    bank: ExpertBank | str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> LMoEForCausalLM:
    """Attach a bank to a loaded model in place: whatever runs it, runs it with its experts.

        lmoe.attach(model, "my-bank")
        model.generate(**inputs)          # routed
        lmoe.detach(model)                # exactly as it came

    Args:
        model: a causal language model of transformers.
        bank: the bank, or its name, folder or id on the hub.
        tokenizer: for plans with scopes by text.

    Returns:
        The same model for calls with a plan.

    Raises:
        BankError, BaseMismatchError, BaseModelError: it is damaged, or does not fit the model, or
            another one is attached.
    """
    return LMoEForCausalLM.from_pretrained(bank, base_model=model, tokenizer=tokenizer)


def detach(model: PreTrainedModel) -> PreTrainedModel:
    """Take the bank off a model that one was attached to; the answer is the plain model.

    Args:
        model: the model that was given to `attach`, or what it gave back.

    Raises:
        BaseModelError: there is none.
    """
    if isinstance(model, LMoEForCausalLM):
        return model.detach()
    mixture = attached_to(model)
    if mixture is None:
        raise BaseModelError(f"This {type(model).__name__} has no bank attached to it.")
    return mixture.detach()
