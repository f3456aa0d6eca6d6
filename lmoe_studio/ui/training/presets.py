"""How long to train: a few options that go together; all others stay as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lmoe_studio.training.config import TrainingConfig


@dataclass(frozen=True)
class Preset:
    """Options of the config, by name."""

    name: str
    note: str
    """What it is for; how long it takes depends on the machine, so the job says it."""
    options: Mapping[str, Any]


def _preset(name: str, note: str, **options: Any) -> Preset:
    return Preset(name, note, MappingProxyType(options))


def _default(*names: str) -> dict[str, Any]:
    return {name: TrainingConfig.model_fields[name].default for name in names}


SET = ("steps", "sequence_length", "rank", "held_out_sequences")
"""The options that a preset sets."""

PRESETS = (
    _preset(
        "Quick look", "does it work at all? After its first steps the job says how long it takes",
        steps=24, sequence_length=64, rank=4, held_out_sequences=4,
    ),
    _preset(
        "Small", "experts that can be told apart; ten times the tokens of a quick look",
        steps=120, sequence_length=128, rank=8, held_out_sequences=12,
    ),
    _preset(
        "Thorough", "the usual options; better on a GPU",
        **_default(*SET),
    ),
)  # fmt: skip
