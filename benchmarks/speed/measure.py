"""Time several ways of doing the same thing, so that only the differences between them count.

One process; in every round each way once, in an order drawn anew; ratios within a round. What slows
the machine for a while then slows both sides of a ratio. A single thread is timed by the processor
time that it used.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lmoe_studio.config import Config


class Spread(Config):
    """A median and the quartiles around it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of some values, to four digits, which is more than they are good for."""
        low, median, high = (float(f"{q:.4g}") for q in np.quantile(values, (0.25, 0.5, 0.75)))
        return cls(low=low, median=median, high=high)

    def __str__(self) -> str:
        around = "" if self.low == self.high else f" ({self.low:.2f}–{self.high:.2f})"
        return f"{self.median:.2f}{around}"


def nothing() -> None:
    """Needs no preparation."""


@dataclass(frozen=True)
class Case:
    """One way of doing the thing."""

    run: Callable[[Any], object]
    """What is timed; takes what `prepare` gave."""
    prepare: Callable[[], Any] = nothing
    """Runs before each timing, untimed."""
    units: int = 1
    """How many of the thing one run does, such as tokens written; times are for one."""


@dataclass(frozen=True)
class Effort:
    """How long to measure for."""

    rounds: int
    """The most."""
    seconds: float
    """About how long all rounds of one comparison may take, by the clock that times them."""
    least: int = 3
    """Rounds that are made however long they take."""


def interleave(
    cases: Mapping[str, Case], effort: Effort, device: torch.device | str = "cpu"
) -> dict[str, list[float]]:
    """Seconds for one unit of each case in each round.

    Two rounds of warm-up come first; one, where a round takes longer than half of all the time.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    seconds = _round(cases, device, times)
    if seconds < effort.seconds / 2:
        seconds = _round(cases, device, times)
    rounds = min(effort.rounds, max(effort.least, int(effort.seconds / seconds)))
    for values in times.values():
        values.clear()
    for _ in range(rounds):
        _round(cases, device, times)
    return times


def ratios(times: Sequence[float], reference: Sequence[float]) -> Spread:
    """How many times as long as the reference, round by round."""
    return Spread.of([a / b for a, b in zip(times, reference, strict=True)])


def clock_for(device: torch.device | str) -> Callable[[], float]:
    """Processor time where one CPU thread does all the work, else time on the wall.

    What other processes do on the machine shows in the second, and hardly in the first.
    """
    alone = torch.device(device).type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def _round(
    cases: Mapping[str, Case], device: torch.device | str, times: dict[str, list[float]]
) -> float:
    """One timing of each case; gives the seconds that all took, preparation included."""
    now = clock_for(device)
    started = now()
    for name in random.sample(list(cases), len(cases)):
        case = cases[name]
        state = case.prepare()
        _wait(device)
        start = now()
        case.run(state)
        _wait(device)
        times[name].append((now() - start) / case.units)
    return now() - started


def _wait(device: torch.device | str) -> None:
    """Until a GPU has done what it was told; a CPU has when the call returns."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
