"""What is in a bank, in numbers; no base model needed."""

from typing import Any

import torch

from lmoe_studio.experts.bank import Expert, ExpertBank
from lmoe_studio.experts.lora import LoraFactors


def describe_bank(bank: ExpertBank) -> dict[str, Any]:
    """Plain values about a bank and each of its experts."""
    training = bank.training or {}
    return {
        "name": bank.name,
        "base": bank.base.id,
        "fingerprint": bank.base.fingerprint,
        "composition": bank.composition,
        "router": str(bank.router),
        "parameters": bank.num_parameters,
        "experts": [_describe_expert(expert) for expert in bank.experts],
        "held_out": training.get("held_out"),
        "specialisation": training.get("specialisation"),
    }


def update_norm(factors: LoraFactors) -> float:
    """Frobenius norm of `scale · b @ a`, without forming it: `‖BA‖² = tr((BᵀB)(AAᵀ))`."""
    a, b = factors.a.double(), factors.b.double()
    square = ((b.T @ b) * (a @ a.T)).sum().clamp_min(0)
    return factors.scale * float(torch.sqrt(square))


def _describe_expert(expert: Expert) -> dict[str, Any]:
    norms = [update_norm(factor) for factor in expert.adapter.factors.values()]
    return {
        "name": expert.name,
        "description": expert.description,
        "tags": list(expert.tags),
        "ranks": list(expert.adapter.ranks),
        "modules": len(expert.adapter.factors),
        "parameters": expert.adapter.num_parameters,
        "update_norm": sum(norm**2 for norm in norms) ** 0.5,
    }
