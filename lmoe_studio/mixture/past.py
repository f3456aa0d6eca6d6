"""What one pass leaves for the next over the same texts: it travels with their cache."""

from collections.abc import Mapping
from functools import cache as once
from typing import Any

from torch import Tensor
from transformers import Cache

Memory = dict[str, Mapping[str, Tensor]]
"""By place, each `[batch, …]` by name: what a router kept there of the tokens so far, or a layer.

Layers keep `weights [batch, token, expert]` where they read the past again in each pass: DeepSeek's
attention caches compressed keys and values, and expands all of them anew.
"""

_MEMORY = "routing_memory"
"""Attribute of a cache that holds it."""


def recall(cache: Cache | None) -> Memory:
    """What was kept of the tokens that a cache holds."""
    return getattr(cache, _MEMORY, {})


def remember(cache: Cache | None, memory: Memory) -> None:
    """Keep it for the next pass over the same cache, whoever moves its rows meanwhile."""
    if cache is not None and memory:
        setattr(cache, _MEMORY, memory)
        if not isinstance(cache, _FollowsRows):
            cache.__class__ = _following(type(cache))


class _FollowsRows:
    """A cache that moves what was kept with its rows: beam search gives texts each other's past."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # pyright: ignore[reportAttributeAccessIssue]
        _move(self, beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)  # pyright: ignore[reportAttributeAccessIssue]
        _move(self, indices)


@once
def _following(kind: type[Cache]) -> type[Any]:
    return type(kind.__name__, (_FollowsRows, kind), {})


def _move(cache: Any, rows: Tensor) -> None:
    kept: Memory = {
        place: {name: tensor[rows] for name, tensor in found.items()}
        for place, found in recall(cache).items()
    }
    setattr(cache, _MEMORY, kept)
