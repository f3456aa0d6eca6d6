"""What a trained bank is worth: numbers as plain values."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis import effective_experts, gate_health, specialisation
from benchmarks.quality.rows import TEST
from lmoe_studio.base_models import BaseModel
from lmoe_studio.causal.blend_search import search_blend
from lmoe_studio.causal.oracle import oracle
from lmoe_studio.causal.token_losses import token_losses
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.training.data import SkillData, collate
from lmoe_studio.training.evaluate import BASE_ALONE, evaluate

BLEND_TEXTS, BLEND_STEPS = 4, 8
Losses = dict[str, float]
"""Nats a token, by skill."""
Values = dict[str, Any]


def router(model: MixtureModel, skills: list[SkillData]) -> Values:
    """The bank as it is: losses on the texts for the table and for choosing, and its routing."""
    found = evaluate(model, _part(skills, slice(TEST)))
    values: Values = {
        "test": found.losses,
        "validation": evaluate(model, _part(skills, slice(TEST, None))).losses,
    }
    if len(model.bank.experts) > 1:
        values["routing"] = routing(model, skills, found.shares)
    return values


def texts(model: MixtureModel, skills: list[SkillData]) -> Values:
    """The bank as it is: the loss of each held-out sequence."""
    return {
        "losses": {
            skill.name: [
                float(loss[0].double().mean())
                for loss in token_losses(model, _ids(skill), [RoutingPlan()])
            ]
            for skill in skills
        }
    }


def base_alone(model: MixtureModel, skills: list[SkillData]) -> Values:
    """The base model without experts."""
    return {"test": evaluate(model, _part(skills, slice(TEST)), plan=BASE_ALONE).losses}


def routing(model: MixtureModel, skills: list[SkillData], shares: pd.DataFrame) -> Values:
    """Specialisation in the upper half of the layers, effective experts, collapse lights."""
    by_layer = specialisation(shares)
    upper = by_layer[by_layer["layer"] >= model.num_layers // 2]
    health = gate_health(shares)
    effective = effective_experts(_cells(model, skills), by=("layer",))
    return {
        "information": upper["information"].mean(),
        "baseline": upper["baseline"].mean(),
        "maximum": upper["maximum"].mean(),
        "effective_a_token": effective["token"].mean(),
        "effective_overall": effective["overall"].mean(),
        "lights": health["health"].value_counts().to_dict(),
        "dead": int((health["dead"] > 0).sum()),
        "layers": len(health),
    }


def plans(model: MixtureModel, skills: list[SkillData]) -> Values:
    """Uniform weights, each expert alone, and the best of those for each text and each token."""
    names = list(model.bank.expert_names)
    tried = [RoutingPlan([Override.uniform()])]
    tried += [RoutingPlan([Override.solo(name)]) for name in names]
    values: Values = {name: {} for name in ("uniform", "alone", "best_per_text", "best_per_token")}
    for skill in _part(skills, slice(TEST)):
        losses = [loss.double().numpy() for loss in token_losses(model, _ids(skill), tried)]
        uniform, *singles = np.mean([loss.mean(axis=1) for loss in losses], axis=0).tolist()
        best = [oracle(loss[1:]) for loss in losses]
        values["uniform"][skill.name] = uniform
        values["alone"][skill.name] = dict(zip(names, singles, strict=True))
        values["best_per_text"][skill.name] = float(np.mean([one.per_text for one in best]))
        values["best_per_token"][skill.name] = float(np.mean([one.per_token for one in best]))
    return values


def blend(model: MixtureModel, skills: list[SkillData]) -> Values:
    """The static blend of each skill, searched on a few training texts, on its held-out texts."""
    values: Values = {"test": {}, "weights": {}}
    for skill in skills:
        examples = [example.ids for example in skill.train[:BLEND_TEXTS]]
        found = search_blend(model, examples, steps=BLEND_STEPS, rate=0.2)
        losses = torch.stack(token_losses(model, _ids(skill)[:TEST], [found.plan])).double()
        values["test"][skill.name] = float(losses.mean())
        values["weights"][skill.name] = found.weights
    return values


def own(model: MixtureModel, skills: list[SkillData]) -> Values:
    """The expert of the text's own skill alone: what a router that knew the skill could do."""
    values: Values = {"test": {}, "validation": {}}
    for skill in skills:
        plan = [RoutingPlan([Override.solo(skill.name)])]
        losses = torch.stack(token_losses(model, _ids(skill), plan)).double()
        values["test"][skill.name] = float(losses[:TEST].mean())
        values["validation"][skill.name] = float(losses[TEST:].mean())
    return values


def arrow(base: BaseModel, bank: ExpertBank, skills: list[SkillData]) -> Values:
    """The same experts under the training-free Arrow router."""
    settings = RouterSettings(kind="arrow", scope="module")
    return on_bank(base, bank.with_router(settings), lambda model: router(model, skills))


def on_bank(base: BaseModel, bank: ExpertBank, ask: Callable[[MixtureModel], Values]) -> Values:
    """Ask something of a bank; the base model is given back as it was."""
    model = MixtureModel(base.model, bank, dtype=torch.float32).eval()
    try:
        return ask(model)
    finally:
        model.detach()


def _part(skills: list[SkillData], part: slice) -> list[SkillData]:
    return [replace(skill, held_out=skill.held_out[part]) for skill in skills]


def _ids(skill: SkillData) -> list[list[int]]:
    return [example.ids for example in skill.held_out]


@torch.inference_mode()
def _cells(model: MixtureModel, skills: list[SkillData], texts: int = 2) -> pd.DataFrame:
    """The routing of every token of a few texts of each skill."""
    frames = []
    for number, skill in enumerate(skills):
        batch = collate([{"example": one, "skill": 0} for one in skill.held_out[:texts]])
        output = model(batch["input_ids"], batch["attention_mask"], record=True, logits_to_keep=1)
        assert output.routing is not None
        weights = output.routing.weights
        many = pd.MultiIndex.from_product(
            [
                range(number * texts, number * texts + weights.shape[0]),
                range(weights.shape[1]),
                range(len(model.sites)),
                model.bank.expert_names,
            ],
            names=["sequence", "position", "site", "expert"],
        )
        frames.append(pd.DataFrame({"weight": weights.flatten().numpy()}, index=many).reset_index())
    frame = pd.concat(frames, ignore_index=True)
    frame["module"] = frame["site"]
    frame["layer"] = frame["site"].map(lambda site: model.sites[site].layer)
    return frame
