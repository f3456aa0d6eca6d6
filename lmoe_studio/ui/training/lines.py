"""Line: values by step for a curve, thinned as they come, so that a long run costs no more."""

import math
from collections.abc import Iterator

MOST_POINTS = 500
"""Of one line."""


class Line:
    """The mean of every `width` steps; the width doubles when there are too many of them."""

    def __init__(self, most: int = MOST_POINTS) -> None:
        self._most = most
        self._width = 1
        self._last = -1
        self._sums: dict[int, tuple[float, int, int]] = {}  # by bucket: sum, count, last step

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, step: int, value: float) -> None:
        """Add the value of a step; one that a resumed run does again is the same as before."""
        if step <= self._last or not math.isfinite(value):
            return
        self._last = step
        self._put(step // self._width, (value, 1, step))
        while len(self._sums) > self._most:
            self._width *= 2
            narrow, self._sums = self._sums, {}
            for bucket, each in narrow.items():
                self._put(bucket // 2, each)

    def points(self, most: int = MOST_POINTS) -> Iterator[tuple[int, float]]:
        """(step, value), at most so many: means of as many neighbours as it takes."""
        sums = list(self._sums.values())
        together = max(1, -(-len(sums) // most))
        for first in range(0, len(sums), together):
            totals, counts, steps = zip(*sums[first : first + together], strict=True)
            yield steps[-1], sum(totals) / sum(counts)

    def _put(self, bucket: int, each: tuple[float, int, int]) -> None:
        total, count, _ = self._sums.get(bucket, (0.0, 0, 0))
        self._sums[bucket] = (total + each[0], count + each[1], each[2])
