"""Studio: holds a loaded L-MoE; the verbs that the interface, the command line and notebooks share."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lmoe_studio.base_models import BaseModel, Progress, load_base, silent
from lmoe_studio.errors import BaseMismatchError, ContextLengthError, TextError
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.files import load_bank, shipped_banks
from lmoe_studio.mixture import MixtureModel
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.tracing.recorder import record_prompt
from lmoe_studio.tracing.records import RoutingTrace
from lmoe_studio.tracing.token_texts import TokenTexts


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


class Studio:
    """A base model with a bank attached, ready to be traced and steered."""

    def __init__(self, base: BaseModel, bank: ExpertBank) -> None:
        """Attach a bank to a loaded base model.

        Raises:
            BaseMismatchError: the bank was made for a base of another architecture.
        """
        if base.identity.fingerprint != bank.base.fingerprint:
            raise BaseMismatchError(
                f"Bank '{bank.name}' was made for {bank.base.id}, and {base.identity.id} is a model "
                "of another architecture; load the bank with its own base model."
            )
        self.bank = bank
        self.tokenizer = base.tokenizer
        self._texts = TokenTexts(base.tokenizer)
        self.context_length = base.context_length
        self.model = MixtureModel(base.model, bank).eval()
        self._one_at_a_time = threading.Lock()

    @classmethod
    def load(
        cls,
        bank: str | Path = "demo",
        *,
        base: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        on_progress: Progress = silent,
    ) -> Self:
        """Load a bank and the base model it belongs to.

        Args:
            bank: name of a shipped bank, or a bank folder.
            base: load this base instead of the one the bank names, for example a local copy.
            device: "auto" takes CUDA, then MPS, then the CPU.
            dtype: "auto" takes bfloat16 on a GPU and float32 on a CPU.
            on_progress: hears each slow step.

        Raises:
            BankError: there is no such bank, it is damaged, or made for another base.
            BaseModelError: the base model cannot be had.
        """
        on_progress(f"Reading bank {bank}")
        loaded = load_bank(bank)
        model = load_base(
            base or loaded.base.id, device=device, dtype=dtype, on_progress=on_progress
        )
        on_progress("Attaching the experts")
        return cls(model, loaded)

    def trace(
        self,
        text: str,
        *,
        plan: RoutingPlan | None = None,
        max_tokens: int | None = None,
        alternatives: int = 5,
        contributions: bool = False,
    ) -> RoutingTrace:
        """One forward pass over a text, and what every router did.

        Args:
            text: read as it is, without a chat template.
            plan: what to change about the routing.
            max_tokens: cut the text to its first tokens; None refuses one that is too long.
            alternatives: how many of the likeliest tokens to note for each position.
            contributions: also note how much each expert added.

        Raises:
            TextError: the text is blank.
            ContextLengthError: it has more tokens than the model can read.
            PlanError: the plan does not fit this bank.
        """
        ids = self._read(text, max_tokens)
        with self._one_at_a_time:
            return record_prompt(
                self.model,
                self._texts,
                ids,
                plan=plan,
                alternatives=alternatives,
                contributions=contributions,
            )

    @property
    def card(self) -> BankCard:
        """What is loaded."""
        weights = next(self.model.base.parameters())
        bank = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        return BankCard(
            bank=self.bank.name,
            base=self.bank.base.id,
            composition=self.bank.composition,
            router=str(self.bank.router),
            experts=tuple(
                ExpertCard(e.name, e.description, e.tags, e.adapter.ranks[-1])
                for e in self.bank.experts
            ),
            num_layers=self.model.num_layers,
            context_length=self.context_length,
            device=str(weights.device),
            dtype=str(weights.dtype).removeprefix("torch."),
            base_parameters=sum(p.numel() for p in self.model.parameters()) - bank,
            bank_parameters=bank,
        )

    def _read(self, text: str, max_tokens: int | None) -> list[int]:
        if not text.strip():
            raise TextError("The text is blank; type or paste something to trace.")
        clean = text.encode("utf-8", "replace").decode()  # a lone surrogate stops the tokenizer
        ids: list[int] = self.tokenizer(clean)["input_ids"][:max_tokens]
        if len(ids) > self.context_length:
            raise ContextLengthError(len(ids), self.context_length)
        return ids


def available_banks() -> list[str]:
    """Names of the banks that come with the package."""
    return list(shipped_banks())
