"""What a training run tells its listener."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Message:
    """A line about what is going on."""

    text: str


@dataclass(frozen=True)
class StepDone:
    """One optimiser step."""

    step: int
    steps: int
    loss: float
    """The joint loss."""
    language_loss: float
    """Its language-modelling part, in nats a token."""
    balance_loss: float
    """1 when balanced, the number of experts when collapsed."""
    skill_loss: float
    """Cross-entropy of routing against skills, in nats, before its weight."""
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class EvalDone:
    """Held-out losses in nats a token, by skill."""

    step: int
    base: dict[str, float]
    bank: dict[str, float]


@dataclass(frozen=True)
class Finished:
    """The bank is written."""

    folder: Path


Event = Message | StepDone | EvalDone | Finished


def ignore(_: Event) -> None:
    """A listener that does not listen."""
