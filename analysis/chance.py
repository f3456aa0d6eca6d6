"""How far a set of numbers stands above what shuffled labels give, corrected for their number."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEAST = 1e-6
"""A number that shuffles move by less than this is the same in all of them, but for rounding."""


@dataclass(frozen=True)
class Chance:
    """What shuffles say of some numbers `[...]` that were looked at together."""

    mean: NDArray[np.float64]
    """`[...]`: mean over the shuffles; NaN without any."""
    ceiling: NDArray[np.float64]
    """`[...]`: 95 % of the shuffles have all numbers at or below it."""
    p_values: NDArray[np.float64]
    """`[...]`: how often a shuffle has any number as far above its mean, counting the real one."""


def against_chance(found: NDArray[np.float64], shuffled: NDArray[np.float64]) -> Chance:
    """Compare numbers with the same numbers under shuffled labels.

    Each number is scaled by its mean and deviation over all arrangements, the real one among them,
    and the real ones are compared with the largest of each arrangement (single-step maxT of
    Westfall and Young, Resampling-Based Multiple Testing, 1993). So the chance that labels dealt
    out at random give any p-value up to x is at most x, however many numbers there are.

    Args:
        found: `[...]`, of the real labels.
        shuffled: `[shuffle, ...]`, of labels dealt out at random.
    """
    every = np.concatenate([found[None], shuffled])
    mean, deviation = every.mean(axis=0), every.std(axis=0)
    moves = deviation > _LEAST
    scaled = np.divide(every - mean, deviation, out=np.zeros_like(every), where=moves)
    largest = scaled.reshape(len(every), -1).max(axis=1)
    # Shuffles that deal the same groups out again may differ in the last bit.
    p_values = (largest >= scaled[0][..., None] - 1e-9).mean(axis=-1)
    if not len(shuffled):
        nothing = np.full_like(mean, np.nan)
        return Chance(nothing, nothing, p_values)
    ceiling = np.quantile(largest, 0.95, method="higher") * deviation + mean
    return Chance(shuffled.mean(axis=0), ceiling, p_values)
