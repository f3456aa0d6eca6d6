"""TrainingConfig: everything a training run can be told, with its help texts and defaults."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from lmoe_studio.base_models import EMBEDDED_BASE
from lmoe_studio.config import Composition, Config, RouterSettings


class SkillConfig(Config):
    """One expert and the text it is for."""

    name: str = Field(pattern=r"^[\w][\w.+-]{0,79}$", description="Name of the expert.")
    train: tuple[Path, ...] = Field(min_length=1, description="JSONL files with a `text` a line.")
    held_out: tuple[Path, ...] = Field(
        default=(),
        description="Files never trained on; none sets a share of the training texts aside.",
    )
    description: str = ""
    tags: tuple[str, ...] = ()
    source: str = Field(
        default="", description="Where the text comes from and its licence, for the card."
    )


class TrainingConfig(Config):
    """A bank to train. Paths are relative to the file that the config was read from."""

    name: str = Field(description="Name of the bank.")
    base: str = Field(
        default=EMBEDDED_BASE, description="Base model: embedded name, hub id or folder."
    )
    skills: tuple[SkillConfig, ...] = Field(min_length=1, description="One expert each, in order.")
    out: Path = Field(description="Folder to write the bank to.")

    rank: int = Field(default=8, ge=1, le=1024, description="Rank of every expert.")
    alpha: float | None = Field(
        default=None,
        gt=0,
        description="LoRA alpha. None takes 1.5 · rank · experts: a dense softmax gives each expert "
        "about 1/N, so the usual alpha would leave updates N times too small.",
    )
    target_modules: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="Last names of the linear layers that get experts.",
    )
    composition: Composition = "output"
    router: RouterSettings = RouterSettings()

    steps: int = Field(default=300, ge=1)
    batch_size: int = Field(default=4, ge=1, description="Sequences a step and device.")
    sequence_length: int = Field(default=256, ge=8, description="Tokens a sequence.")
    gradient_accumulation: int = Field(default=1, ge=1)
    gradient_checkpointing: bool = False
    learning_rate: float = Field(default=1e-3, gt=0, description="Of the experts.")
    router_learning_rate: float = Field(default=3e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps.")
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)

    balance_loss: float = Field(
        default=0.01, ge=0, description="Weight of the load-balancing loss."
    )
    z_loss: float = Field(default=0.001, ge=0, description="Weight of the router z-loss.")
    skill_loss: float = Field(
        default=0.3, ge=0, description="Weight of skill supervision; 0 lets specialisation emerge."
    )
    skill_loss_until: float = Field(
        default=0.6, gt=0, le=1, description="Share of training over which supervision fades to 0."
    )

    held_out_share: float = Field(
        default=0.05, gt=0, lt=1, description="Where no held-out file is given."
    )
    held_out_sequences: int = Field(default=24, ge=1, description="A skill, for evaluation.")
    save_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    seed: int = 0

    @model_validator(mode="after")
    def _skills_have_names_of_their_own(self) -> Self:
        names = [skill.name for skill in self.skills]
        if len(set(names)) < len(names):
            raise ValueError(f"two skills have the same name among {', '.join(names)}")
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
                    "train": tuple(folder / file for file in skill.train),
                    "held_out": tuple(folder / file for file in skill.held_out),
                }
            )
            for skill in self.skills
        )
        return self.model_copy(update={"skills": skills, "out": folder / self.out})

    @property
    def scale(self) -> float:
        """Alpha divided by rank."""
        return (self.alpha or 1.5 * self.rank * len(self.skills)) / self.rank

    @property
    def tokens_a_step(self) -> int:
        return self.batch_size * self.gradient_accumulation * self.sequence_length
