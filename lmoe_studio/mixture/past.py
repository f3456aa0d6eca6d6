"""What one pass leaves for the next over the same texts: it travels with their cache."""

from collections.abc import Mapping

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
    """Keep it for the next pass over the same cache."""
    if cache is not None and memory:
        setattr(cache, _MEMORY, memory)


def select_rows(cache: Cache, rows: Tensor) -> None:
    """Let a cache hold these of its rows, one or several times."""
    cache.batch_select_indices(rows)
    kept: Memory = {
        place: {name: tensor[rows] for name, tensor in found.items()}
        for place, found in recall(cache).items()
    }
    remember(cache, kept)
