"""One forward pass of a base model, whatever the names that its own `forward` has for things."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from lmoe_studio.errors import TextError
from lmoe_studio.routing.router import TokenBatch

_CACHES = ("past_key_values", "cache_params")
_LENGTH = "tokens_read"
"""Attribute of a cache that cannot say how long it is: state-space models' have no such axis."""


class BaseOutput(NamedTuple):
    """Result of a base model's pass."""

    logits: Tensor
    cache: Cache | None


class AskedPass(NamedTuple):
    """A pass that somebody asks of a base model, by arguments of its own `forward`."""

    tokens: TokenBatch
    """All of a prompt, as far as one can know."""
    past: int
    """How many columns were read before."""
    cache: Cache | None
    """Of those."""
    embeddings: Tensor | None
    """Of the tokens, where their ids are not given and so are 0."""

    @classmethod
    def of(cls, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Self:
        """Raises TextError where neither ids nor embeddings are given."""
        ids = args[0] if args else kwargs.get("input_ids")
        embeddings = kwargs.get("inputs_embeds") if ids is None else None
        if ids is None:
            if embeddings is None:
                raise TextError(
                    "The model is called without input_ids; give the ids of a text's tokens."
                )
            ids = torch.zeros(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
        caches = (kwargs.get(name) for name in _CACHES)
        cache = next((cache for cache in caches if cache is not None), None)
        past = cache_length(cache)
        mask, places = kwargs.get("attention_mask"), kwargs.get("position_ids")
        is_padding = isinstance(mask, Tensor) and mask.ndim == 2
        tokens = token_batch(ids, mask if is_padding else None, None, past)
        if not is_padding and isinstance(places, Tensor) and places.ndim == 2:
            tokens = replace(tokens, positions=places.expand_as(ids))
        return cls(tokens, past, cache, embeddings)


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
    before = getattr(cache, _LENGTH, 0)  # read now: the pass fills the same cache
    output = base(**arguments)
    after = cache_of(output)
    if after is not None and not _tells_length(after):
        setattr(after, _LENGTH, before + tokens.ids.shape[1])
    logits = output.logits
    if "logits_to_keep" not in takes and logits_to_keep:
        logits = logits[:, -logits_to_keep:]
    return BaseOutput(logits, after)


def cache_of(output: object) -> Cache | None:
    """The cache that a base model's pass gave back."""
    return next((found for name in _CACHES if (found := getattr(output, name, None))), None)


def cache_length(cache: Cache | None) -> int:
    """How many tokens a cache holds."""
    if cache is None:
        return 0
    return int(cache.get_seq_length()) if _tells_length(cache) else getattr(cache, _LENGTH, 0)


def _tells_length(cache: Cache) -> bool:
    """False of a cache without a layer of keys; does not ask the host, as a CUDA graph must not."""
    try:
        cache.get_seq_length()
    except ValueError:
        return False
    return True


@lru_cache
def _arguments(kind: type[PreTrainedModel]) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters)


def token_batch(
    ids: Tensor, attention_mask: Tensor | None, steps: Tensor | None, past: int
) -> TokenBatch:
    """The tokens of a pass after `past` cached ones; all are of a prompt where `steps` is None."""
    seq = ids.shape[1]
    if attention_mask is None:
        positions = torch.arange(past, past + seq, device=ids.device).expand_as(ids)
        is_token = torch.ones_like(ids, dtype=torch.bool)
    else:
        positions = (attention_mask.long().cumsum(dim=-1) - 1).clamp_min(0)[:, -seq:]
        is_token = attention_mask[:, -seq:].bool()
    if steps is None:
        steps = torch.full_like(ids, -1)
    return TokenBatch(ids, positions, is_token, steps)
