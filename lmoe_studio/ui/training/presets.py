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
    """What it is for and how long it takes."""
    options: Mapping[str, Any]


def _preset(name: str, note: str, **options: Any) -> Preset:
    return Preset(name, note, MappingProxyType(options))


def _default(*names: str) -> dict[str, Any]:
    return {name: TrainingConfig.model_fields[name].default for name in names}


SET = ("steps", "sequence_length", "rank", "held_out_sequences")
"""The options that a preset sets."""

PRESETS = (
    _preset(
        "Quick look", "does it work at all? A few minutes on two CPU cores with SmolLM2",
        steps=24, sequence_length=64, rank=4, held_out_sequences=4,
    ),
    _preset(
        "Small", "experts that can be told apart, in a quarter of an hour on two CPU cores",
        steps=120, sequence_length=128, rank=8, held_out_sequences=12,
    ),
    _preset(
        "Thorough", "the usual options; about an hour on two CPU cores, minutes on a GPU",
        **_default(*SET),
    ),
)  # fmt: skip
