"""What is trained: each row of the study as the demo config with changes.

Every row sees the same sequences, N·r ranks in all, and as many steps.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lmoe_studio.training.config import TrainingConfig

DEMO = Path(__file__).parents[2] / "examples" / "skills" / "demo.yaml"
TEST, VALIDATION = 12, 4
"""Held-out sequences of a skill that the table is about, and others that choose settings."""
WIDE = 40
"""Held-out sequences of a skill where two banks are compared text by text."""

Kind = Literal["mixture", "one LoRA", "per skill", "router only", "shipped"]
SCALES: dict[str, dict[str, Any]] = {
    "small": {"steps": 64, "batch_size": 4, "sequence_length": 128},
    "demo": {"steps": 300, "batch_size": 4, "sequence_length": 256},
}


@dataclass(frozen=True)
class Row:
    """One way to train, to be repeated with several seeds."""

    name: str
    title: str
    kind: Kind = "mixture"
    changes: dict[str, Any] = field(default_factory=dict)
    """To the demo config; `scale` stands for alpha over rank."""

    def config(self, scale: str, data: Path, seed: int, out: Path) -> TrainingConfig:
        """The config of the mixture: one skill an expert."""
        demo = TrainingConfig.read(DEMO)
        skills = [
            skill.model_copy(
                update={
                    "train": (data / skill.name / "train.jsonl",),
                    "held_out": (data / skill.name / "heldout.jsonl",),
                }
            )
            for skill in demo.skills
        ]
        changes = SCALES[scale] | self.changes
        router = changes.pop("router", {})
        times = changes.pop("scale", None)
        if times is not None:
            changes["alpha"] = times * demo.rank
        return demo.model_copy(
            update={
                "name": self.name,
                "skills": tuple(skills),
                "router": demo.router.model_copy(update=router),
                "out": out,
                "save_dtype": "float32",
                "device": "cpu",
                "seed": seed,
                "eval_every": changes["steps"],  # it is measured when it is done
                "checkpoint_every": 16,
                "eval_sequences": 1,
                "held_out_sequences": 1,
                **changes,
            }
        )


def one_lora(scale: float, rate: float) -> Row:
    """A plain LoRA of rank N·r on all skills mixed."""
    name = f"lora-{scale:g}-{rate:g}"
    changes = {"scale": scale, "learning_rate": rate}
    return Row(name, f"one LoRA, α/r {scale:g}, learning rate {rate:g}", "one LoRA", changes)


def mixture(scale: float, rate: float) -> Row:
    """The L-MoE as in the demo, with another scale and learning rate of the experts."""
    name = f"output-{scale:g}-{rate:g}"
    changes = {"scale": scale, "learning_rate": rate}
    return Row(name, f"L-MoE `output`, α/r {scale:g}, learning rate {rate:g}", changes=changes)


def sigmoid(scale: float, rate: float, **changes: Any) -> Row:
    """The L-MoE with independent weights, which begin at 1/2: as one LoRA of half its α/r."""
    name = f"sigmoid-{scale:g}-{rate:g}"
    title = f"L-MoE `output`, sigmoid weights, α/r {scale:g}, learning rate {rate:g}"
    router = {"activation": "sigmoid"}
    return Row(
        name, title, changes={"scale": scale, "learning_rate": rate, "router": router, **changes}
    )


def per_skill(scale: float, rate: float) -> Row:
    """One LoRA of rank r a skill, each trained alone."""
    name = f"per-skill-{scale:g}-{rate:g}"
    changes = {"scale": scale, "learning_rate": rate}
    return Row(
        name, f"per-skill LoRAs, α/r {scale:g}, learning rate {rate:g}", "per skill", changes
    )


LORAS = [
    one_lora(2, 1e-3), one_lora(2, 4e-3), one_lora(4, 1e-3), one_lora(8, 1e-3), one_lora(16, 1e-3),
]  # fmt: skip
"""Settings tried for the baseline; the best on the validation texts stands for it."""
MIXTURES = [mixture(12, 1e-3), mixture(24, 1e-3), mixture(48, 1e-3), mixture(12, 2e-3)]
"""Likewise for the L-MoE; the first is the demo bank's."""
SIGMOIDS = [sigmoid(16, 1e-3), sigmoid(32, 1e-3)]
"""Likewise for the L-MoE whose weights need not sum to 1."""
PER_SKILL = [per_skill(2, 1e-3), per_skill(2, 4e-3)]
"""Likewise for the LoRAs trained alone."""
FACTOR = Row("factor", "L-MoE `factor`", changes={"composition": "factor"})
ROUTER_ONLY = Row(
    "router-only", "a router trained on the per-skill LoRAs", "router only", {"skill_loss": 0.0}
)
ABLATIONS = [
    Row("no-supervision", "no skill supervision", changes={"skill_loss": 0.0}),
    Row("no-balance", "no balance loss", changes={"balance_loss": 0.0}),
    Row("shared", "one router for all layers", changes={"router": {"scope": "shared"}}),
    Row("module", "a router for each linear layer", changes={"router": {"scope": "module"}}),
    Row("small-alpha", "α/r 1 in place of 12", changes={"scale": 1}),
]
"""Changes to the first of `MIXTURES`, seed 0."""
FREE = replace(
    sigmoid(16, 1e-3, skill_loss=0.0, balance_loss=0.0),
    name="sigmoid",
    title="sigmoid weights, α/r 16, no supervision, no balance loss",
)
"""Nothing asks its router to tell experts apart."""
SHIPPED = Row("shipped", "the demo bank", "shipped")
"""Scale "demo", seed 0: not trained again."""
ALL_ROWS = [
    SHIPPED, *LORAS, *MIXTURES, *SIGMOIDS, FACTOR, *PER_SKILL, ROUTER_ONLY, *ABLATIONS, FREE,
]  # fmt: skip
