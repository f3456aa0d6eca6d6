"""What one pass leaves for the next over the same texts: it travels with their cache."""

from torch import Tensor
from transformers import Cache

PastWeights = dict[str, Tensor]
"""By layer `[batch, token, expert]`: under which weights its past was read, to be read so again.

DeepSeek's attention keeps compressed keys and values, and expands all of them anew in every pass.
"""

_WEIGHTS = "weights_of_the_past"
"""Attribute of a cache that holds them."""


def past_weights(cache: Cache | None) -> PastWeights:
    """What layers that read the past again had there."""
    return getattr(cache, _WEIGHTS, {})


def keep_weights(cache: Cache | None, weights: PastWeights) -> None:
    """Note it down for the next pass over the same cache."""
    if cache is not None and weights:
        setattr(cache, _WEIGHTS, weights)


def select_rows(cache: Cache, rows: Tensor) -> None:
    """Let a cache hold these of its rows, one or several times."""
    cache.batch_select_indices(rows)
    keep_weights(cache, {name: weights[rows] for name, weights in past_weights(cache).items()})
