"""TrainingConfig: everything a training run can be told, with its help texts and defaults.

The form, the command line and files take fields, help texts and defaults from here. No torch, so
that they need not wait for it.
"""

import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SkipValidation,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lmoe_studio.config import EMBEDDED_BASE, Composition, Config, Quantize
from lmoe_studio.errors import ConfigError
from lmoe_studio.routing.presets import PRESETS, with_preset
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.sources.named import DatasetSource, Source, as_source, source_value

OF_SHARES = ("balance_loss", "z_loss", "skill_loss")
"""Losses that ask something of shares; weights by activation identity are none."""
_OWN_OF_A_BANK = ("rank", "alpha", "target_modules", "composition")
EXPERT_NAME = r"^[\w][\w.+-]{0,79}$"


def _sources(value: Any) -> Any:
    """A list of sources, or one without a list."""
    is_many = isinstance(value, list | tuple)
    return tuple(map(as_source, value)) if is_many else (as_source(value),)


Sources = Annotated[
    tuple[SkipValidation[Source], ...],
    BeforeValidator(_sources),
    PlainSerializer(lambda given: [source_value(one) for one in given], when_used="json"),
]
"""Files, saved datasets, datasets of the hub, or in Python objects of the library `datasets`."""


class SkillConfig(Config):
    """One expert and the text it is for."""

    name: str = Field(pattern=EXPERT_NAME, description="Name of the expert.")
    train: Sources = Field(
        min_length=1,
        description="Files: .jsonl, .csv or .parquet with `text`, with `prompt` and `response`, or "
        "with chat `messages`; or .txt, its texts apart by blank lines (or one a line). Or datasets: "
        "a folder of `save_to_disk`, or of the hub {dataset: user/name, config, split, take}.",
    )
    held_out: Sources = Field(
        default=(),
        description="The same, never trained on; none sets a share of the training texts aside.",
    )
    description: str = ""
    tags: tuple[str, ...] = ()
    source: str = Field(
        default="", description="Where the text comes from and its licence, for the card."
    )


class TrainingConfig(Config):
    """A bank to train. Paths are relative to the file that the config was read from."""

    name: str = Field(pattern=EXPERT_NAME, description="Name of the bank.")
    base: str = Field(
        default=EMBEDDED_BASE, description="Base model: embedded name, hub id or folder."
    )
    quantize: Quantize | None = Field(
        default=None,
        description="Keep the base's linear layers in 4 or 8 bits while experts and router learn in "
        "full precision (QLoRA): less memory, some loss. Needs `lmoe-studio[quantised]`.",
    )
    mode: Literal["joint", "router", "experts"] = Field(
        default="joint",
        description="Train experts and router together; only the router, over the frozen experts of "
        "`bank`; or only the experts, under a router that stays as it is.",
    )
    bank: str | None = Field(
        default=None,
        description="Start from this bank (a name or folder, for example imported adapters) instead "
        "of new experts. Mode `router` needs one.",
    )
    skills: tuple[SkillConfig, ...] = Field(min_length=1, description="One expert each, in order.")
    out: Path = Field(description="Folder to write the bank to.")

    rank: int = Field(default=8, ge=1, le=1024, description="Rank of every expert.")
    alpha: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        allow_inf_nan=False,
        description="LoRA alpha. None takes 1.5 · rank · experts: a dense softmax gives each expert "
        "about 1/N, so the usual alpha would leave updates N times too small. With sigmoid weights, "
        "which begin at 1/2, it takes 16 · rank.",
    )
    target_modules: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="Last names of the linear layers that get experts.",
    )
    composition: Composition = Field(
        default="output", description="Average the experts' updates, or their factors."
    )
    router: RouterSettings = Field(
        default=RouterSettings(), description="How hidden states become routing weights."
    )

    template: Literal["plain", "chat"] = Field(
        default="plain",
        description="How prompt and response are put together: the response on a new line, or as "
        "user and assistant of the base model's chat template.",
    )
    steps: int = Field(default=300, ge=1, description="Optimiser steps.")
    batch_size: int = Field(default=4, ge=1, description="Sequences a step and device.")
    sequence_length: int = Field(default=256, ge=8, description="Tokens a sequence.")
    gradient_accumulation: int = Field(
        default=1,
        ge=1,
        description="Batches a step, one after another: less memory and the same result; where the "
        "router is balanced, for the time of one more forward pass.",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations: less memory, more time."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Of the computation; auto takes bfloat16 where the device has it. Experts and "
        "router stay float32.",
    )
    learning_rate: float = Field(default=1e-3, gt=0, le=1, description="Of the experts.")
    router_learning_rate: float = Field(default=3e-3, gt=0, le=1, description="Of the router.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="How the learning rates fall."
    )
    warmup: float = Field(
        default=0.05, ge=0, lt=1, description="Share of the steps over which they rise first."
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="Of the experts.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Longer gradients are cut to this.")

    balance_loss: float = Field(
        default=0.01,
        ge=0,
        description="Weight of the load-balancing loss. Under a router with activation identity, "
        "whose weights are no shares, this and the next two are 0 unless they are given here; then "
        "they are taken of a softmax of its logits.",
    )
    z_loss: float = Field(default=0.001, ge=0, description="Weight of the router z-loss.")
    skill_loss: float = Field(
        default=0.3, ge=0, description="Weight of skill supervision; 0 lets specialisation emerge."
    )
    skill_loss_until: float = Field(
        default=0.6, gt=0, le=1, description="Share of training over which supervision fades to 0."
    )

    held_out_share: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Share of a skill's texts never trained on, where no held-out file is given.",
    )
    held_out_sequences: int = Field(
        default=24,
        ge=1,
        description="A skill, for the evaluation before and after: texts with as many tokens.",
    )
    eval_every: int | None = Field(
        default=None,
        ge=1,
        description="Steps between held-out evaluations; none takes a tenth of the steps, at least 5.",
    )
    eval_sequences: int = Field(
        default=4, ge=1, description="The same for the evaluations during training."
    )
    early_stopping: int | None = Field(
        default=None,
        ge=1,
        description="Stop when this many evaluations bring no better held-out loss, and keep the "
        "best; none trains to the end.",
    )
    checkpoint_every: int | None = Field(
        default=None,
        ge=1,
        description="Steps between checkpoints; none takes a tenth of the steps, at least 5.",
    )
    keep_checkpoints: int = Field(
        default=2, ge=2, description="How many to keep, so that a damaged one does no harm."
    )
    save_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="Of the experts on disk."
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or mps.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of everything that is drawn.")

    @field_validator("router", mode="before")
    @classmethod
    def _preset_is_over_the_skills(cls, router: Any, info: ValidationInfo) -> Any:
        """Some presets name the experts, which are the skills."""
        if not isinstance(router, dict) or "skills" not in info.data:
            return router
        try:
            return with_preset(router, [skill.name for skill in info.data["skills"]])
        except ConfigError as error:
            raise ValueError(str(error).rstrip(".")) from None

    @model_validator(mode="before")
    @classmethod
    def _losses_of_shares_are_for_shares(cls, values: Any) -> Any:
        if not isinstance(values, dict) or _activation(values.get("router")) != "identity":
            return values
        return dict.fromkeys(OF_SHARES, 0.0) | values

    @model_validator(mode="after")
    def _skills_have_names_of_their_own(self) -> Self:
        names = [skill.name for skill in self.skills]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two skills are named '{twice[0]}'; give each a name of its own")
        return self

    @model_validator(mode="after")
    def _a_bank_brings_its_own_experts(self) -> Self:
        if self.mode == "router" and self.bank is None:
            raise ValueError("mode 'router' trains over frozen experts: name their bank in `bank`")
        fields = type(self).model_fields
        given = [n for n in _OWN_OF_A_BANK if getattr(self, n) != fields[n].default]
        if self.bank is not None and given:
            raise ValueError(
                f"{', '.join(given)}: the experts of `bank` have their own; leave it out"
            )
        return self

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read YAML or JSON; relative paths start at the file's own folder."""
        config = super().read(path)
        return config.relative_to(Path(path).parent)

    def relative_to(self, folder: Path) -> Self:
        """The same config with its paths taken from `folder`."""
        skills = tuple(
            skill.model_copy(
                update={
                    "train": tuple(_placed(source, folder) for source in skill.train),
                    "held_out": tuple(_placed(source, folder) for source in skill.held_out),
                }
            )
            for skill in self.skills
        )
        return self.model_copy(update={"skills": skills, "out": folder / self.out})

    @property
    def scale(self) -> float:
        """Alpha divided by rank."""
        if self.alpha is not None:
            return self.alpha / self.rank
        return 16.0 if self.router.activation == "sigmoid" else 1.5 * len(self.skills)

    @property
    def steps_between_evaluations(self) -> int:
        return self.eval_every or max(5, self.steps // 10)

    @property
    def steps_between_checkpoints(self) -> int:
        return self.checkpoint_every or max(5, self.steps // 10)


def _activation(router: Any) -> Any:
    """Of a router's settings, checked ones or not yet."""
    if isinstance(router, RouterSettings):
        return router.activation
    if not isinstance(router, dict):
        return None
    preset = next((own for name, own in PRESETS.items() if name == router.get("preset")), {})
    return router.get("activation", preset.get("activation"))


def _placed(source: Source, folder: Path) -> Source:
    if isinstance(source, DatasetSource):
        return source.relative_to(folder)
    return folder / source if isinstance(source, Path) else source


def annotated_yaml(config: TrainingConfig | None = None) -> str:
    """Every option as YAML, with its meaning above it; without a config, defaults to fill in."""
    values: dict[str, Any] = config.model_dump(mode="json") if config else _PATTERN
    lines = []
    for name, field in TrainingConfig.model_fields.items():
        if config is not None and config.bank and name in _OWN_OF_A_BANK:
            continue
        value = values.get(name, field.get_default(call_default_factory=True))
        if isinstance(value, Config):
            value = value.model_dump(mode="json")
        lines += [f"# {line}" for line in textwrap.wrap(field.description or "", 96)]
        shown = {name: list(value) if isinstance(value, tuple) else value}
        lines.append(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=96))
    return "\n".join(lines)


_PATTERN = {
    "name": "my-bank",
    "out": "runs/my-bank",
    "skills": [
        {"name": "sql", "train": ["data/sql.jsonl"], "held_out": ["data/sql-heldout.jsonl"]},
        {"name": "french", "train": ["data/french.txt"]},
    ],
}
