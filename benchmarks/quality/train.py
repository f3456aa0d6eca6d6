"""Train one row with one seed: every row goes through `run_training` and sees the same sequences."""

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.quality.rows import Row
from lmoe_studio.base_models import BaseModel
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.files import save_bank
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.training.config import SkillConfig, TrainingConfig
from lmoe_studio.training.events import Event
from lmoe_studio.training.run import run_training
from lmoe_studio.training.start import starting_bank

UNIFORM = RouterSettings(kind="uniform")
WITHOUT_ROUTER = {"mode": "experts", "router": UNIFORM, "skill_loss": 0.0}
"""For one LoRA: nothing to route, nothing to balance."""


def train_row(
    row: Row,
    config: TrainingConfig,
    base: BaseModel,
    experts: Path | None,
    listen: Callable[[Event], None],
) -> ExpertBank:
    """Train; the bank is written to `config.out`. A run that was stopped goes on.

    Args:
        row: what.
        config: its config.
        base: given back as it was.
        experts: the bank whose experts stay as they are, for kind "router only".
        listen: hears every step.
    """
    match row.kind:
        case "mixture":
            return run_training(config, listen, base=base)
        case "one LoRA":
            return run_training(_one_lora(config, base), listen, base=base)
        case "router only":
            assert experts is not None
            own = {"mode": "router", "bank": str(experts)}
            return run_training(config.model_copy(update=own), listen, base=base)
        case "per skill":
            return _per_skill(config, base, listen)
        case "shipped":
            raise ValueError("The demo bank is not trained again.")


def _one_lora(config: TrainingConfig, base: BaseModel) -> TrainingConfig:
    """One expert of all the ranks, on the mixture's very batches."""
    rank = config.rank * len(config.skills)
    skill = SkillConfig(name="all", train=config.skills[0].train)
    alone = {"skills": (skill,), "rank": rank, "alpha": config.scale * rank}
    one = config.model_copy(update=WITHOUT_ROUTER | alone)
    start = config.out.with_name(f"{config.out.name}.start")
    save_bank(starting_bank(one, base.identity), start, overwrite=True)
    return config.model_copy(update={**WITHOUT_ROUTER, "bank": str(start)})


def _per_skill(
    config: TrainingConfig, base: BaseModel, listen: Callable[[Event], None]
) -> ExpertBank:
    """One LoRA a skill, each trained alone on its own share of the sequences."""
    started, experts = time.monotonic(), []
    for skill in config.skills:
        alone = {
            "skills": (skill,),
            "steps": config.steps // len(config.skills),
            "alpha": config.scale * config.rank,
            "out": config.out.with_name(f"{config.out.name}.{skill.name}"),
        }
        trained = run_training(config.model_copy(update=WITHOUT_ROUTER | alone), listen, base=base)
        experts += trained.experts
    report = {"seconds": round(time.monotonic() - started)}
    bank = ExpertBank(config.name, base.identity, tuple(experts), UNIFORM, training=report)
    save_bank(bank, config.out)
    return bank
