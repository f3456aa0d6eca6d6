"""One forward pass of a base model, whatever the names that its own `forward` has for things."""

import inspect
from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor
from transformers import Cache, PreTrainedModel

from lmoe_studio.routing.router import TokenBatch

_CACHES = ("past_key_values", "cache_params")
_LENGTH = "tokens_read"
"""Attribute of a cache that cannot say how long it is: state-space models' have no such axis."""


class BaseOutput(NamedTuple):
    """Result of a base model's pass."""

    logits: Tensor
    cache: Cache | None


def run_base(
    base: PreTrainedModel,
    tokens: TokenBatch,
    attention_mask: Tensor | None,
    *,
    cache: Cache | None,
    use_cache: bool,
    logits_to_keep: int,
) -> BaseOutput:
    """Run a base model over some tokens.

    Args:
        base: the model.
        tokens: of this pass.
        attention_mask: as the model takes it; None where nothing is padded.
        cache: of the tokens before these.
        use_cache: give a cache back.
        logits_to_keep: logits of the last n positions only; 0 for all.
    """
    takes = _arguments(type(base))
    its_cache = next((name for name in _CACHES if name in takes), None)
    arguments: dict[str, Any] = {"input_ids": tokens.ids, "attention_mask": attention_mask}
    # Under a cache some models would count from 0 in every pass. A first pass without padding they
    # know, and need not look for packed texts.
    if "position_ids" in takes and (attention_mask is not None or cache is not None):
        arguments["position_ids"] = tokens.positions
    if its_cache is not None:
        arguments |= {its_cache: cache, "use_cache": use_cache}
    if "logits_to_keep" in takes:
        arguments["logits_to_keep"] = logits_to_keep
    length = cache_length(cache) + tokens.ids.shape[1]  # before the pass, which fills the same cache
    output = base(**arguments)
    after = getattr(output, its_cache, None) if its_cache else None
    if after is not None:
        setattr(after, _LENGTH, length)
    logits = output.logits
    if "logits_to_keep" not in takes and logits_to_keep:
        logits = logits[:, -logits_to_keep:]
    return BaseOutput(logits, after)


def cache_length(cache: Cache | None) -> int:
    """How many tokens a cache holds."""
    if cache is None:
        return 0
    try:
        return int(cache.get_seq_length())
    except ValueError:
        return getattr(cache, _LENGTH, 0)


@lru_cache
def _arguments(kind: type[PreTrainedModel]) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters)
