"""The losses of a step: means over all its tokens, of however many batches and processes they are.

A batch gives its part of each mean, times the number of processes, as gradients are averaged over
those: then the sums over batches and the means over processes are right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lmoe_studio.mixture.model import MixtureOutput
from lmoe_studio.routing.balance import BalanceGroup, group_balance
from lmoe_studio.routing.losses import (
    router_z_loss,
    routing_shares,
    skill_loss,
    token_mean,
    top_choices,
)
from lmoe_studio.routing.router import Router
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.training.language_loss import learned_tokens, summed_loss
from lmoe_studio.training.processes import Processes

Batch = dict[str, Tensor]
"""`input_ids`, `attention_mask`, `steps`, `labels`: `[batch, seq]`; `skills`: `[batch]`."""

TopChoices = list[Float[Tensor, "site _"]]
"""For each group of experts that is balanced, how many tokens have each as their top choice."""


@dataclass
class WholeStep:
    """What a step holds in all its batches and processes."""

    router: Router
    """One of them, as all are of a kind."""
    processes: Processes
    tokens: Tensor
    supervised: Tensor
    """Tokens whose text has an expert of its own."""
    learned: Tensor
    """Tokens that are to be predicted."""
    later: TopChoices | None
    """Of this process's batches after the first; None if there are none."""
    _chosen: TopChoices | None = None
    """Of all batches and processes."""

    @classmethod
    def of(
        cls,
        batches: Sequence[Batch],
        router: Router,
        processes: Processes,
        later: TopChoices | None = None,
    ) -> Self:
        """Count what is in this process's batches, and all others'; `later` is of `look_ahead`."""
        counts = [
            torch.stack([_mask(b).sum(), _supervised(b).sum(), learned_tokens(b["labels"])])
            for b in batches
        ]
        tokens, supervised, learned = processes.sum(torch.stack(counts).sum(0)).clamp_min(1)
        return cls(router, processes, tokens, supervised, learned, later)

    def losses(self, output: MixtureOutput, batch: Batch) -> dict[str, Tensor]:
        """A batch's part of the losses `language`, `balance`, `z` and `skill`, and of the `routing`.

        The routing is `[site, expert]`: mean weights. The batches of a step come in their order.
        """
        routing, mask = output.routing, _mask(batch)
        assert routing is not None
        probs = compared(routing.probs, self.router.settings)
        groups, count = self.router.balanced(routing.notes, mask), self.processes.count
        share = mask.sum() * count / self.tokens
        supervised = _supervised(batch).sum() * count / self.supervised
        if self._chosen is None:  # the first batch
            chosen = _added(self.later, _top_choices(probs, groups))
            self._chosen = [self.processes.sum(one) for one in chosen]
        return {
            "language": summed_loss(output.logits, batch["labels"]) * count / self.learned,
            "balance": self._balance(probs, groups, self._chosen),
            "z": share * router_z_loss(routing.logits, mask),
            "skill": supervised
            * skill_loss(probs, batch["skills"], mask, self.router.allowed(routing.notes)),
            "routing": share * token_mean(routing.weights.detach(), mask),
        }

    def _balance(
        self, probs: Tensor, groups: Sequence[BalanceGroup], chosen: TopChoices
    ) -> Float[Tensor, ""]:
        """A batch's part of the mean over the groups that have tokens in this step."""
        tokens = [one[0].sum() for one in chosen]
        loads = [one / many.clamp_min(1) for one, many in zip(chosen, tokens, strict=True)]
        each = group_balance(probs, groups, loads)
        whole = torch.stack(tokens)
        own = torch.stack([group.tokens.sum() for group in groups])
        parts = own * self.processes.count / whole.clamp_min(1) * each
        return parts.sum() / (whole > 0).sum().clamp_min(1)


@torch.no_grad()
def look_ahead(model: nn.Module, batches: Sequence[Batch], router: Router) -> TopChoices | None:
    """The top choices of a step's batches after the first, before any of them is learned from.

    The balance loss multiplies each expert's load, which has no gradient, by its mean probability,
    which has. With the load of the whole step the parts of the batches add up to its loss; with a
    batch's own every batch would be asked to be balanced, however few texts it has. Costs a forward
    pass without logits for each of them; the first is spared it, as its own pass comes before its
    loss. Random numbers are drawn as if nobody had looked.
    """
    device, found = batches[0]["input_ids"].device, None
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for batch in batches[1:]:
            output = model(
                batch["input_ids"],
                batch["attention_mask"],
                steps=batch["steps"],
                record=True,
                logits_to_keep=1,
            )
            groups = router.balanced(output.routing.notes, _mask(batch))
            probs = compared(output.routing.probs, router.settings)
            found = _added(found, _top_choices(probs, groups))
    return found


def compared(
    probs: Float[Tensor, "batch seq site expert"], router: RouterSettings
) -> Float[Tensor, "batch seq site expert"]:
    """Probabilities as the losses compare them."""
    match router.activation:
        case "softmax":
            return probs
        case "sigmoid":
            return routing_shares(probs)
        case "identity":  # logits, over the temperature
            return probs.softmax(dim=-1)


def _top_choices(probs: Tensor, groups: Sequence[BalanceGroup]) -> TopChoices:
    return [top_choices(probs[..., group.experts], group.tokens) for group in groups]


def _added(some: TopChoices | None, more: TopChoices) -> TopChoices:
    return more if some is None else [one + other for one, other in zip(some, more, strict=True)]


def _mask(batch: Batch) -> Tensor:
    return batch["attention_mask"].bool()


def _supervised(batch: Batch) -> Tensor:
    return _mask(batch) & (batch["skills"] >= 0)[:, None]
