"""The model card of a trained bank, written from its training report."""

from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.training.config import TrainingConfig


def model_card(bank: ExpertBank, config: TrainingConfig) -> str:
    """README.md of a bank folder: what it is, how it was made, what it scores."""
    report = bank.training or {}
    held_out, separation = report["held_out"], report["specialisation"]
    upper = len(separation["layer"]) // 2
    parts = [
        f"# {bank.name}",
        f"An L-MoE expert bank for `{bank.base.id}`: {len(bank.experts)} LoRA experts of rank "
        f"{config.rank} (alpha {config.scale * config.rank:g}) and a {bank.router} router, composition "
        f"`{bank.composition}`, trained together. Every folder under `experts/` is an ordinary PEFT "
        "adapter.",
        "## Held-out loss",
        "Nats a token on texts that training never saw; the base model with and without the bank.",
        _loss_table(held_out["base"], held_out["bank"]),
        f"Mutual information of skill and expert, mean over the upper half of the layers: "
        f"{_mean(separation['information'][upper:]):.2f} bits of at most "
        f"{separation['maximum'][0]:.2f}; with shuffled labels "
        f"{_mean(separation['baseline'][upper:]):.3f}.",
        "## How it was made",
        f"{config.steps} steps of {config.batch_size * config.gradient_accumulation} × "
        f"{config.sequence_length} tokens, the skills taking turns; AdamW, learning rate "
        f"{config.learning_rate:g} (router {config.router_learning_rate:g}, {config.schedule}); "
        f"balance loss {config.balance_loss:g}, z-loss {config.z_loss:g}, skill supervision "
        f"{config.skill_loss:g} fading to 0 at {config.skill_loss_until:.0%}; target modules "
        f"{', '.join(config.target_modules)}; seed {config.seed}; {report['seconds'] / 60:.0f} "
        "minutes. `training.json` holds the whole config, the sha256 of every data file, the curve "
        "and the versions.",
        "## Data",
        _source_table(config),
    ]
    return "\n\n".join(parts) + "\n"


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
