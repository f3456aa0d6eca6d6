"""Token sequences of like length, padded together."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

Item = TypeVar("Item")


def batches_of_like_length(
    items: Iterable[Item], length: Callable[[Item], int], most: int
) -> list[list[Item]]:
    """Items together so that little is padding; the longest come first, empty ones are left out.

    Args:
        items: what is batched.
        length: of an item, in tokens.
        most: tokens of a batch, padding counted; a longer item is a batch by itself.
    """
    batches = list[list[Item]]()
    for item in sorted(items, key=lambda item: -length(item)):
        if not length(item):
            continue
        if batches and length(batches[-1][0]) * (len(batches[-1]) + 1) <= most:
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches


def padded(
    sequences: Sequence[Sequence[int]],
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"] | None]:
    """Token ids padded with 0 on the right, and their mask; None where nothing is padding."""
    ids = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[row, : len(sequence)] = 1
    return ids, None if mask.all() else mask
