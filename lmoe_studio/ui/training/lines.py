"""Line: values by step for a curve, thinned as they come, so that a long run costs no more."""

import math
from collections.abc import Iterator, Mapping

import pandas as pd

MOST_POINTS = 500
"""Of one line."""
_MOST_ROWS = 960  # of all lines of a plot; beyond a thousand the browser thins them once more


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
        self._put(self._sums, step // self._width, (value, 1, step))
        if len(self._sums) > self._most:
            self._width *= 2
            self._sums = self._merged(self._sums, 2)

    def points(self, most: int = MOST_POINTS) -> Iterator[tuple[int, float]]:
        """(step, value), at most so many."""
        sums = self._merged(self._sums, max(1, -(-len(self._sums) // most)))
        for total, count, step in sums.values():
            yield step, total / count

    @classmethod
    def _merged(
        cls, sums: dict[int, tuple[float, int, int]], times: int
    ) -> dict[int, tuple[float, int, int]]:
        merged: dict[int, tuple[float, int, int]] = {}
        for bucket, each in sums.items():
            cls._put(merged, bucket // times, each)
        return merged

    @staticmethod
    def _put(
        sums: dict[int, tuple[float, int, int]], bucket: int, each: tuple[float, int, int]
    ) -> None:
        total, count, _ = sums.get(bucket, (0.0, 0, 0))
        sums[bucket] = (total + each[0], count + each[1], each[2])


def lines_frame(lines: Mapping[str, Line], value: str, *, most: int = MOST_POINTS) -> pd.DataFrame:
    """Lines by name as one tidy frame: step, `value`, line; at most so many points a line."""
    most = min(most, _MOST_ROWS // max(1, len(lines)))
    rows = [
        (step, round(each, 4), name)
        for name, line in lines.items()
        for step, each in line.points(most)
    ]
    return pd.DataFrame(rows, columns=["step", value, "line"])
