"""Train one row with one seed: every row goes through the same trainer and the same sequences."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from transformers import set_seed

from benchmarks.quality.rows import Row
from lmoe_studio.base_models import BaseModel
from lmoe_studio.config import RouterSettings
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.mixture import MixtureModel
from lmoe_studio.training.config import SkillConfig, TrainingConfig
from lmoe_studio.training.data import MixedSkills, SkillData
from lmoe_studio.training.events import StepDone
from lmoe_studio.training.run import new_bank
from lmoe_studio.training.trainer import JointTrainer

UNIFORM = RouterSettings(kind="uniform")
Listener = Callable[[Any], None]


def train_row(
    row: Row,
    config: TrainingConfig,
    base: BaseModel,
    skills: list[SkillData],
    experts: ExpertBank | None,
    listen: Listener,
) -> tuple[ExpertBank, dict[str, Any]]:
    """Train; gives the bank and how it went.

    Args:
        row: what.
        config: its config.
        base: given back as it was.
        skills: the texts, as the config asks for them.
        experts: the bank whose experts stay as they are, for kind "router only".
        listen: hears every step.
    """
    started = time.monotonic()
    size = config.steps * config.batch_size
    data = list(map(MixedSkills(skills, size, config.seed).__getitem__, range(size)))
    curve = list[float]()

    def hear(event: Any) -> None:
        if isinstance(event, StepDone):
            curve.append(round(event.language_loss, 4))
        listen(event)

    match row.kind:
        case "mixture":
            bank = _fit(new_bank(config, base), config, data, base, hear)
        case "one LoRA":
            bank = _one_lora(config, data, base, hear)
        case "per skill":
            bank = _per_skill(config, data, base, hear)
        case "router only":
            assert experts is not None
            start = experts.with_router(config.router)
            bank = _fit(start, config, data, base, hear, router_only=True)
    parameters = {
        "experts": sum(expert.adapter.num_parameters for expert in bank.experts),
        "router": sum(tensor.numel() for tensor in bank.router_state.values()),
    }
    report = {"curve": curve, "parameters": parameters, "seconds": time.monotonic() - started}
    return replace(bank, name=row.name), report


def _fit(
    bank: ExpertBank,
    config: TrainingConfig,
    data: list[dict[str, Any]],
    base: BaseModel,
    listen: Listener,
    *,
    router_only: bool = False,
) -> ExpertBank:
    set_seed(config.seed)
    model = MixtureModel(base.model, bank, dtype=torch.float32)
    try:
        for layer in model.bank_layers.values():
            layer.requires_grad_(not router_only)
            layer.base.requires_grad_(False)
        with tempfile.TemporaryDirectory() as folder:
            JointTrainer(model.train(), config, data, listen, folder).train()  # pyright: ignore[reportArgumentType]  (a list of sequences is data too)
        return model.eval().to_bank()
    finally:
        model.detach()


def _one_lora(
    config: TrainingConfig, data: list[dict[str, Any]], base: BaseModel, listen: Listener
) -> ExpertBank:
    """One expert of all the ranks, on the mixture's very batches."""
    rank = config.rank * len(config.skills)
    everything = SkillConfig(name="all", train=config.skills[0].train)
    one = config.model_copy(
        update={"rank": rank, "alpha": config.scale * rank, "skills": (everything,)}
    )
    bank = new_bank(one, base).with_router(UNIFORM)
    return _fit(bank, one, [row | {"skill": 0} for row in data], base, listen)


def _per_skill(
    config: TrainingConfig, data: list[dict[str, Any]], base: BaseModel, listen: Listener
) -> ExpertBank:
    """One LoRA a skill, each trained alone on its own share of the sequences."""
    experts = []
    for index, skill in enumerate(config.skills):
        alone = config.model_copy(
            update={
                "skills": (skill,),
                "steps": config.steps // len(config.skills),
                "seed": config.seed + 1000 * index,  # the order of the sequences stays
            }
        )
        own = [row | {"skill": 0} for row in data if row["skill"] == index]
        bank = new_bank(alone, base).with_router(UNIFORM)
        experts += _fit(bank, alone, own, base, listen).experts
    return ExpertBank("per skill", base.identity, tuple(experts), UNIFORM)
