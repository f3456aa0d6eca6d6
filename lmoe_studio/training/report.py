"""The training report that a bank carries: config, data, curve, results, versions."""

import importlib.metadata
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from analysis.specialisation import specialisation
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.sources.named import DatasetSource, Source, source_value
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.data import SkillData
from lmoe_studio.training.evaluate import Evaluation
from lmoe_studio.training.identity import Digests, bank_digest

_VERSIONS = ("lmoe-studio", "torch", "transformers", "peft", "accelerate")


def with_report(
    bank: ExpertBank,
    config: TrainingConfig,
    skills: list[SkillData],
    digests: Digests,
    *,
    base: Evaluation,
    trained: Evaluation,
    curve: list[dict[str, float]],
    step: int,
    seconds: float,
    hindsight: str,
) -> ExpertBank:
    """The bank with the report of its training."""
    report: dict[str, Any] = {
        "config": portable(config),
        "data_sha256": digests,
        "bank_sha256": bank_digest(config),
        "data": {skill.name: _read(skill) for skill in skills},
        "held_out": {"base": base.losses, "bank": trained.losses},
        "curve": curve,
        "step": step,
        "seconds": round(seconds),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available() and config.device != "cpu"
        else platform.processor() or platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
    }
    if hindsight:
        report["hindsight"] = hindsight
    if len(config.skills) > 1:
        found = specialisation(trained.shares).round(4)
        report["specialisation"] = found.to_dict(orient="list")
    return replace(bank, training=report)


def _read(skill: SkillData) -> dict[str, Any]:
    report = skill.report
    return {
        "texts": report.texts,
        "held_out_texts": report.held_out_texts,
        "sequences": report.sequences,
        "tokens": report.tokens,
        "dropped": report.dropped,
    }


def portable(config: TrainingConfig) -> dict[str, Any]:
    """The config as plain values, with file names that say nothing of this machine's folders."""
    values = config.model_dump(mode="json")
    values["out"] = config.out.name
    for skill, entry in zip(config.skills, values["skills"], strict=True):
        entry["train"] = [_portable(source) for source in skill.train]
        entry["held_out"] = [_portable(source) for source in skill.held_out]
    return values


def _portable(source: Source) -> str | dict[str, Any]:
    if isinstance(source, DatasetSource) and source.looks_local:
        place = Path(source.dataset)
        short = source.model_copy(update={"dataset": f"./{place.parent.name}/{place.name}"})
        return source_value(short)
    is_path = isinstance(source, Path)
    return f"{source.parent.name}/{source.name}" if is_path else source_value(source)
