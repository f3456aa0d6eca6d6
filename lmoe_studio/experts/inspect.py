"""What is in a bank, in numbers; no base model needed."""

from typing import Any

from lmoe_studio.experts.bank import Expert, ExpertBank


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


def _describe_expert(expert: Expert) -> dict[str, Any]:
    norms = [factor.update_norm for factor in expert.adapter.factors.values()]
    return {
        "name": expert.name,
        "description": expert.description,
        "tags": list(expert.tags),
        "ranks": list(expert.adapter.ranks),
        "modules": len(expert.adapter.factors),
        "parameters": expert.adapter.num_parameters,
        "update_norm": sum(norm**2 for norm in norms) ** 0.5,
    }
