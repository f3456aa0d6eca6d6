"""Comparison: the same prompt and seed under several plans, side by side."""

from dataclasses import dataclass
from itertools import combinations

from lmoe_studio.generation.text import Generation

BASE = "base"
"""The name of the run without experts."""


@dataclass(frozen=True)
class Comparison:
    """Runs that differ in their plans only."""

    runs: dict[str, Generation]
    """By the plan's name, in the order asked for; `base` first, if it was asked for."""
    identical: tuple[tuple[str, str], ...]
    """Pairs of different plans that wrote the same tokens."""
    reference_logprobs: dict[str, float] | None
    """Log-probability in nats of a reference text after the prompt, under each plan."""

    def divergence(self, one: str, other: str) -> int | None:
        """The first step at which two runs wrote different tokens; None if they never did."""
        a, b = self.runs[one].token_ids, self.runs[other].token_ids
        for step, (left, right) in enumerate(zip(a, b, strict=False)):
            if left != right:
                return step
        return None if len(a) == len(b) else min(len(a), len(b))


def identical_runs(runs: dict[str, Generation]) -> tuple[tuple[str, str], ...]:
    """Pairs of runs that wrote the same tokens."""
    return tuple((a, b) for a, b in combinations(runs, 2) if runs[a].token_ids == runs[b].token_ids)
