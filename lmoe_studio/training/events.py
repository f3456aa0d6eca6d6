"""What a training run tells its listener: plain values, which survive a file or a process.

Steps count finished optimiser steps. After a resume the steps since the checkpoint come again, with
the same values: whoever keeps them keys them by kind and step.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Message:
    """A line about what is going on."""

    text: str


@dataclass(frozen=True)
class SkillReport:
    """What was read for one skill."""

    name: str
    texts: int
    """Texts, pairs or conversations with something to learn."""
    held_out_texts: int
    sequences: int
    """Training sequences prepared: as many as the run will use, or all there are."""
    tokens: int
    """Tokens in them."""
    dropped: dict[str, int]
    """How many rows were left out or changed, by reason."""
    sources: tuple[str, ...] = ()
    """What was found where, a line each: how many rows, and in which columns."""


@dataclass(frozen=True)
class DataReady:
    """The texts are read and tokenised."""

    skills: tuple[SkillReport, ...]


@dataclass(frozen=True)
class GroupHealth:
    """How the routers of some layers do, from the mean routing of one step."""

    layers: str
    """For example `0-9`."""
    top_expert: str
    max_share: float
    """Share of the top expert."""
    entropy: float
    """Of the mean distribution over its maximum: 1 when all experts have alike."""
    dead_experts: tuple[str, ...]
    health: str
    """`good`, `watch` or `collapsed`, see `analysis.gate_health`."""


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
    z_loss: float
    skill_loss: float
    """Cross-entropy of routing against skills, in nats, before its weight."""
    learning_rate: float
    gradient_norm: float
    shares: dict[str, float]
    """Mean routing weight of each expert, over tokens and layers."""
    health: tuple[GroupHealth, ...]
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class EvalDone:
    """Held-out losses in nats a token, by skill."""

    step: int
    base: dict[str, float]
    bank: dict[str, float]
    final: bool = False
    """Over all held-out sequences, of the bank that is written."""

    @property
    def mean(self) -> float:
        """Of the bank, each skill counting alike."""
        return sum(self.bank.values()) / len(self.bank)

    @property
    def base_mean(self) -> float:
        """Of the base model, likewise."""
        return sum(self.base.values()) / len(self.base)


@dataclass(frozen=True)
class CheckpointSaved:
    """From here the run can go on."""

    step: int
    folder: str


@dataclass(frozen=True)
class CheckpointRefused:
    """A checkpoint is damaged and was put aside; an older one is used."""

    folder: str
    reason: str


@dataclass(frozen=True)
class Resumed:
    """The run goes on where it was."""

    step: int


@dataclass(frozen=True)
class Finished:
    """The bank is written."""

    folder: str
    step: int
    """The step whose experts it holds: the last, or the best where training stopped early."""


Event = (
    Message
    | DataReady
    | StepDone
    | EvalDone
    | CheckpointSaved
    | CheckpointRefused
    | Resumed
    | Finished
)
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in Event.__args__}


def ignore(_: Event) -> None:
    """A listener that does not listen."""


def event_to_dict(event: Event) -> dict[str, Any]:
    """Plain values with the event's `kind`, ready for JSON."""
    return {"kind": type(event).__name__, **asdict(event)}


def event_from_dict(values: dict[str, Any]) -> Event:
    """The event again. Raises KeyError for an unknown kind."""
    kind = _KINDS[values["kind"]]
    known = {field.name: values[field.name] for field in fields(kind) if field.name in values}
    if kind is DataReady:
        known["skills"] = tuple(
            SkillReport(**{**item, "sources": tuple(item.get("sources", ()))})
            for item in known["skills"]
        )
    if kind is StepDone:
        known["health"] = tuple(
            GroupHealth(**{**item, "dead_experts": tuple(item["dead_experts"])})
            for item in known["health"]
        )
    return kind(**known)
