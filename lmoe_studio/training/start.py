"""The bank that a run starts from: new experts, or those of another bank under their router."""

import math

import torch

from lmoe_studio.base_models import BaseIdentity, Progress, silent
from lmoe_studio.errors import ConfigError, did_you_mean
from lmoe_studio.experts.bank import Expert, ExpertBank
from lmoe_studio.experts.files import load_bank
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.registry import router_class
from lmoe_studio.training.config import TrainingConfig

_MAKE = ("kind", "scope", "activation")
"""Options of a router that its tensors were made for; the others only say how its scores are used."""


def starting_bank(
    config: TrainingConfig, base: BaseIdentity, *, on_progress: Progress = silent
) -> ExpertBank:
    """The untrained bank.

    Args:
        config: what is to be trained.
        base: over which base model.
        on_progress: hears that a trained router is not taken over.

    Raises:
        ConfigError: nothing could be trained; the skills are not the experts of `bank`; or its router
            is to stay, and is of another make than the one that the config asks for.
        BankError: there is no such bank, or it was made for another base.
    """
    _require_something_to_learn(config)
    if config.bank is None:
        return _new_bank(config, base)
    bank = load_bank(config.bank)
    bank.require_base(base)
    names = tuple(skill.name for skill in config.skills)
    if config.skill_loss:  # without it a skill needs no expert of its name
        _require_same_experts(config, bank, names)
    state = _starting_router(config, bank, on_progress)
    return ExpertBank(config.name, base, bank.experts, config.router, state, bank.composition)


def choose_trained(model: MixtureModel, config: TrainingConfig) -> None:
    """Let only the parameters learn that the mode says: experts, routers, or both."""
    experts, routers = {
        "joint": (True, True),
        "router": (False, True),
        "experts": (True, False),
    }[config.mode]
    for name, parameter in model.named_parameters():
        if name.startswith("routers."):
            parameter.requires_grad_(routers)
        elif ".lora_" in name:
            parameter.requires_grad_(experts)


def skill_labels(config: TrainingConfig, bank: ExpertBank) -> list[int]:
    """For each skill the index of the expert of its name; -1 where the bank has none."""
    names = bank.expert_names
    return [names.index(s.name) if s.name in names else -1 for s in config.skills]


def _starting_router(
    config: TrainingConfig, bank: ExpertBank, on_progress: Progress
) -> dict[str, torch.Tensor]:
    """The bank's router, which another temperature or top-k takes over as it is."""
    wanted, there = config.router, bank.router
    if not bank.router_state:
        return {}
    differs = [name for name in _MAKE if getattr(wanted, name) != getattr(there, name)]
    if not differs:
        return bank.router_state
    asked = ", ".join(f"{name} {getattr(wanted, name)}" for name in differs)
    has = ", ".join(f"{name} {getattr(there, name)}" for name in differs)
    if config.mode == "experts" and router_class(wanted.kind).learned:
        raise ConfigError(
            f"router: {asked} is asked for, and the router of bank '{config.bank}' has {has}, so that "
            "it cannot stay as it is; ask for the same, for a fixed one (kind uniform or blend), or "
            "train it too (mode joint)."
        )
    on_progress(
        f"The trained router of bank '{config.bank}' ({has}) is not taken over, as {asked} is asked "
        f"for: {'a new one learns' if config.mode != 'experts' else 'that one is fixed'}."
    )
    return {}


def _require_something_to_learn(config: TrainingConfig) -> None:
    learned = router_class(config.router.kind).learned
    if config.mode != "experts" and not learned:
        raise ConfigError(
            f"Router '{config.router.kind}' has nothing to learn; mode '{config.mode}' takes one that "
            "has, as 'linear'. To train experts under a router that stays as it is, use mode 'experts'."
        )
    if config.mode == "experts" and config.router.kind == "arrow":
        raise ConfigError(
            "The arrow router follows the experts' directions, which move while they are trained; "
            "train with another one, and set arrow afterwards."
        )


def _require_same_experts(config: TrainingConfig, bank: ExpertBank, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in bank.expert_names:
            raise ConfigError(
                f"skills: bank '{config.bank}' has no expert '{name}'; "
                f"{did_you_mean(name, bank.expert_names)} Or set skill_loss to 0."
            )
    missing = [name for name in bank.expert_names if name not in names]
    if missing and config.mode != "router":
        raise ConfigError(
            f"skills: expert '{missing[0]}' of bank '{config.bank}' has no data; give it a skill of "
            "its name."
        )


def _new_bank(config: TrainingConfig, base: BaseIdentity) -> ExpertBank:
    """Experts that do nothing yet: A random (Kaiming uniform), B zero, as LoRA starts."""
    inside = "" if base.blocks is None else f"{base.blocks}."
    shapes = {n: s for n, s in (base.linear_shapes or {}).items() if n.startswith(inside)}
    called = {name: _called(name, shape) for name, shape in shapes.items()}
    targets = {name: shapes[name] for name in shapes if called[name] in config.target_modules}
    missing = set(config.target_modules) - {called[name] for name in targets}
    if missing:
        names = sorted(set(called.values()))
        raise ConfigError(
            f"target_modules: {config.base} has no linear layer named {', '.join(sorted(missing))}; "
            f"it has {', '.join(names)}."
        )
    generator = torch.Generator().manual_seed(config.seed)
    experts = tuple(
        Expert(skill.name, _new_adapter(targets, config, generator), skill.description, skill.tags)
        for skill in config.skills
    )
    return ExpertBank(config.name, base, experts, config.router, composition=config.composition)


def _called(path: str, shape: tuple[int, ...]) -> str:
    """What `target_modules` calls a layer: by its own name; of fused experts, with theirs before it."""
    return ".".join(path.split(".")[-1 if len(shape) == 2 else -2 :])


def _new_adapter(
    targets: dict[str, tuple[int, ...]], config: TrainingConfig, generator: torch.Generator
) -> LoraAdapter:
    factors = {}
    for name, (*fused, d_out, d_in) in targets.items():
        bound = 1 / math.sqrt(d_in)  # Kaiming uniform with a = sqrt(5), PEFT's choice
        a = (torch.rand(*fused, config.rank, d_in, generator=generator) * 2 - 1) * bound
        b = torch.zeros(*fused, d_out, config.rank)
        factors[name] = LoraFactors(a, b, config.scale)
    return LoraAdapter(factors, config.base)
