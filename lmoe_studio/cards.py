"""What is loaded, for people."""

from dataclasses import dataclass

from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.quantisation import count_parameters, quantised_as


@dataclass(frozen=True)
class ExpertCard:
    """One expert, for people."""

    name: str
    description: str
    tags: tuple[str, ...]
    rank: int
    """The largest, if they differ between modules."""


@dataclass(frozen=True)
class BankCard:
    """What is loaded, for people."""

    bank: str
    base: str
    composition: str
    router: str
    experts: tuple[ExpertCard, ...]
    num_layers: int
    context_length: int
    device: str
    dtype: str
    base_parameters: int
    bank_parameters: int
    quantize: str | None = None
    """Of the base's linear layers: "4bit", "8bit", or None."""


def bank_card(model: MixtureModel, context_length: int) -> BankCard:
    """The card of a bank over its base model, which reads so many tokens."""
    bank = model.bank
    weights = next(model.base.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return BankCard(
        bank=bank.name,
        base=bank.base.id,
        composition=bank.composition,
        router=str(bank.router),
        experts=tuple(
            ExpertCard(e.name, e.description, e.tags, e.adapter.ranks[-1]) for e in bank.experts
        ),
        num_layers=model.num_layers,
        context_length=context_length,
        device=str(weights.device),
        dtype=str(weights.dtype).removeprefix("torch."),
        base_parameters=count_parameters(model) - trained,
        bank_parameters=trained,
        quantize=quantised_as(model.base),
    )
