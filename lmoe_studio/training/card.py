"""The model card of a trained bank, written from its training report."""

from typing import Any

from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.card import front_matter
from lmoe_studio.training.config import TrainingConfig


def model_card(bank: ExpertBank, config: TrainingConfig) -> str:
    """README.md of a bank folder: what it is, how it was made, what it scores."""
    report = bank.training or {}
    parts = [
        front_matter(bank).rstrip(),
        f"# {bank.name}",
        f"An L-MoE expert bank for `{bank.base.id}`: {len(bank.experts)} LoRA experts of {_rank(bank)} "
        f"and a {bank.router} router, composition `{bank.composition}`; {_trained(config)}. Every "
        "folder under `experts/` is an ordinary PEFT adapter.",
        "## Held-out loss",
        "Nats a token on texts that training never saw; the base model with and without the bank.",
        *([report["hindsight"]] if "hindsight" in report else []),
        _loss_table(report["held_out"]["base"], report["held_out"]["bank"]),
        *_separation(report),
        "## How it was made",
        f"{report['step']} of {config.steps} steps of "
        f"{config.batch_size * config.gradient_accumulation} × {config.sequence_length} tokens, the "
        f"skills taking turns; AdamW, learning rate {config.learning_rate:g} (router "
        f"{config.router_learning_rate:g}, {config.schedule}); balance loss {config.balance_loss:g}, "
        f"z-loss {config.z_loss:g}, skill supervision {config.skill_loss:g} fading to 0 at "
        f"{config.skill_loss_until:.0%}; target modules {', '.join(_targets(bank))}; seed "
        f"{config.seed}; {report['seconds'] / 60:.0f} minutes. `training.json` holds the whole "
        "config, the sha256 of every data file, the curve and the versions.",
        "## Data",
        _source_table(config),
    ]
    return "\n\n".join(parts) + "\n"


def _trained(config: TrainingConfig) -> str:
    return {
        "joint": "experts and router trained together",
        "router": "the router trained over frozen experts",
        "experts": "the experts trained under a fixed router",
    }[config.mode]


def _rank(bank: ExpertBank) -> str:
    """Ranks of the experts, and alpha where all have the same."""
    factors = [f for expert in bank.experts for f in expert.adapter.factors.values()]
    ranks = sorted({f.rank for f in factors})
    alphas = {f.rank * f.scale for f in factors}
    shown = f"rank {ranks[0]}" if len(ranks) == 1 else f"rank {ranks[0]} to {ranks[-1]}"
    return shown + (f" (alpha {alphas.pop():g})" if len(alphas) == 1 else "")


def _targets(bank: ExpertBank) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[2] for name in bank.modules))


def _separation(report: dict[str, Any]) -> list[str]:
    found = report.get("specialisation")
    if not found:
        return []
    upper = len(found["layer"]) // 2
    return [
        "Mutual information of skill and expert, mean over the upper half of the layers: "
        f"{_mean(found['information'][upper:]):.2f} bits of at most {found['maximum'][0]:.2f}; with "
        f"shuffled labels {_mean(found['baseline'][upper:]):.3f}."
    ]


def _loss_table(base: dict[str, float], bank: dict[str, float]) -> str:
    rows = ["| skill | base | bank | change |", "| --- | --- | --- | --- |"]
    rows += [f"| {n} | {base[n]:.3f} | {bank[n]:.3f} | {bank[n] - base[n]:+.3f} |" for n in base]
    before, after = _mean(list(base.values())), _mean(list(bank.values()))
    return "\n".join([*rows, f"| **mean** | {before:.3f} | {after:.3f} | {after - before:+.3f} |"])


def _source_table(config: TrainingConfig) -> str:
    rows = ["| expert | what it is for | source and licence |", "| --- | --- | --- |"]
    rows += [f"| {s.name} | {s.description} | {s.source} |" for s in config.skills]
    return "\n".join(rows)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
