"""run_training: a config in, a bank out. CLI, Python and jobs all come in here."""

import importlib.metadata
import math
import platform
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import set_seed

from analysis.specialisation import specialisation
from lmoe_studio.base_models import BaseModel, load_base
from lmoe_studio.errors import ConfigError
from lmoe_studio.experts.bank import Expert, ExpertBank
from lmoe_studio.experts.files import save_bank
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors
from lmoe_studio.mixture import MixtureModel
from lmoe_studio.routing.registry import router_class
from lmoe_studio.training.card import model_card
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.data import MixedSkills, SkillData, fingerprints, load_skills
from lmoe_studio.training.evaluate import BASE_ALONE, Evaluation, evaluate
from lmoe_studio.training.events import EvalDone, Event, Finished, Message, StepDone, ignore
from lmoe_studio.training.trainer import JointTrainer

VERSIONS = ("lmoe-studio", "torch", "transformers", "peft", "accelerate")


def run_training(
    config: TrainingConfig,
    on_event: Callable[[Event], None] = ignore,
    *,
    base: BaseModel | None = None,
) -> ExpertBank:
    """Train experts and router together and write the bank to `config.out`.

    The same config and seed give the same bank on the same machine.

    Args:
        config: what to train.
        on_event: hears what happens.
        base: an already loaded base model; it is given back as it was.

    Raises:
        LMoEError: the config, the data or the base cannot be used, or the bank not be written.
    """
    started = time.monotonic()
    base = base or load_base(
        config.base,
        device=config.device,
        dtype="float32",
        on_progress=lambda m: on_event(Message(m)),
    )
    on_event(Message("Reading and tokenising the texts"))
    skills = load_skills(config, base.tokenizer)
    set_seed(config.seed)
    model = MixtureModel(base.model, new_bank(config, base), dtype=torch.float32)
    try:
        on_event(Message("Measuring the base model on the held-out texts"))
        before = evaluate(model, skills, plan=BASE_ALONE)
        curve = _train(model, config, skills, on_event)
        on_event(Message("Measuring the bank on the held-out texts"))
        after = evaluate(model, skills)
        on_event(EvalDone(config.steps, before.losses, after.losses))
        bank = model.to_bank()
    finally:
        model.detach()
    bank = _with_report(bank, config, before, after, curve, time.monotonic() - started)
    folder = save_bank(
        bank,
        config.out,
        dtype=getattr(torch, config.save_dtype),
        card=model_card(bank, config),
        overwrite=True,
    )
    on_event(Finished(folder))
    return bank


def new_bank(config: TrainingConfig, base: BaseModel) -> ExpertBank:
    """Experts that do nothing yet: A random (Kaiming uniform), B zero, as LoRA starts.

    Raises:
        ConfigError: no linear layer of the base has one of the target names, or the router of
            this kind cannot be trained.
    """
    if not router_class(config.router).learned:
        raise ConfigError(
            f"Router '{config.router.kind}' has nothing to learn; joint training takes 'linear'."
        )
    shapes = base.identity.linear_shapes or {}
    targets = {n: s for n, s in shapes.items() if n.rsplit(".", 1)[-1] in config.target_modules}
    missing = set(config.target_modules) - {name.rsplit(".", 1)[-1] for name in targets}
    if missing:
        names = sorted({name.rsplit(".", 1)[-1] for name in shapes})
        raise ConfigError(
            f"target_modules: {config.base} has no linear layer named {', '.join(sorted(missing))}; "
            f"it has {', '.join(names)}."
        )
    generator = torch.Generator().manual_seed(config.seed)
    experts = tuple(
        Expert(
            skill.name,
            _new_adapter(targets, config, generator),
            skill.description,
            skill.tags,
        )
        for skill in config.skills
    )
    return ExpertBank(
        config.name, base.identity, experts, config.router, composition=config.composition
    )


def _new_adapter(
    targets: dict[str, tuple[int, int]], config: TrainingConfig, generator: torch.Generator
) -> LoraAdapter:
    factors = {}
    for name, (d_out, d_in) in targets.items():
        bound = 1 / math.sqrt(d_in)  # Kaiming uniform with a = sqrt(5), PEFT's choice
        a = (torch.rand(config.rank, d_in, generator=generator) * 2 - 1) * bound
        factors[name] = LoraFactors(a, torch.zeros(d_out, config.rank), config.scale)
    return LoraAdapter(factors, config.base)


def _train(
    model: MixtureModel,
    config: TrainingConfig,
    skills: list[SkillData],
    on_event: Callable[[Event], None],
) -> list[dict[str, float]]:
    curve = []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            curve.append(
                {"step": event.step, "loss": round(event.language_loss, 5),
                 "balance": round(event.balance_loss, 5), "skill": round(event.skill_loss, 5)}
            )  # fmt: skip
        on_event(event)

    size = config.steps * config.batch_size * config.gradient_accumulation
    data = MixedSkills(skills, size, config.seed)
    with tempfile.TemporaryDirectory() as folder:
        JointTrainer(model.train(), config, data, listen, folder).train()
    model.eval()
    return curve


def _with_report(
    bank: ExpertBank,
    config: TrainingConfig,
    before: Evaluation,
    after: Evaluation,
    curve: list[dict[str, float]],
    seconds: float,
) -> ExpertBank:
    separation = specialisation(after.shares)
    report: dict[str, Any] = {
        "config": _portable(config),
        "data_sha256": fingerprints(config),
        "held_out": {"base": before.losses, "bank": after.losses},
        "specialisation": separation.round(4).to_dict(orient="list"),
        "curve": curve,
        "seconds": round(seconds),
        "device": platform.processor() or platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
    }
    return ExpertBank(
        bank.name, bank.base, bank.experts, bank.router, bank.router_state, bank.composition, report
    )


def _portable(config: TrainingConfig) -> dict[str, Any]:
    """The config as plain values, with file names that say nothing of this machine's folders."""
    values = config.model_dump(mode="json")
    values["out"] = config.out.name
    for skill, entry in zip(config.skills, values["skills"], strict=True):
        entry["train"] = [f"{file.parent.name}/{file.name}" for file in skill.train]
        entry["held_out"] = [f"{file.parent.name}/{file.name}" for file in skill.held_out]
    return values
