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

from lmoe_studio.config import RouterSettings
from lmoe_studio.mixture.model import MixtureOutput
from lmoe_studio.routing.losses import (
    expert_load,
    load_balancing_loss,
    router_z_loss,
    routing_shares,
    skill_loss,
    token_mean,
)
from lmoe_studio.training.language_loss import learned_tokens, summed_loss
from lmoe_studio.training.processes import Processes

Batch = dict[str, Tensor]
"""`input_ids`, `attention_mask`, `labels`: `[batch, seq]`; `skills`: `[batch]`."""


@dataclass(frozen=True)
class WholeStep:
    """What a step holds in all its batches and processes."""

    router: RouterSettings
    processes: Processes
    tokens: Tensor
    supervised: Tensor
    """Tokens whose text has an expert of its own."""
    learned: Tensor
    """Tokens that are to be predicted."""
    load: Float[Tensor, "site expert"] | None
    """Share of the tokens whose top choice is each expert; None takes that of a batch for it."""

    @classmethod
    def of(
        cls,
        batches: Sequence[Batch],
        router: RouterSettings,
        processes: Processes,
        load: Float[Tensor, "site expert"] | None = None,
    ) -> Self:
        """Count what is in this process's batches, and all others'."""
        counts = [
            torch.stack([_mask(b).sum(), _supervised(b).sum(), learned_tokens(b["labels"])])
            for b in batches
        ]
        tokens, supervised, learned = processes.sum(torch.stack(counts).sum(0)).clamp_min(1)
        return cls(router, processes, tokens, supervised, learned, load)

    def losses(self, output: MixtureOutput, batch: Batch) -> dict[str, Tensor]:
        """A batch's part of the losses `language`, `balance`, `z` and `skill`, and of the `routing`.

        The routing is `[site, expert]`: mean weights.
        """
        routing, mask = output.routing, _mask(batch)
        assert routing is not None
        probs, count = compared(routing.probs, self.router), self.processes.count
        share = mask.sum() * count / self.tokens
        supervised = _supervised(batch).sum() * count / self.supervised
        load = self.load
        if load is None:
            load = load_over_processes(
                expert_load(probs.detach(), mask), mask.sum(), self.processes
            )
        return {
            "language": summed_loss(output.logits, batch["labels"]) * count / self.learned,
            "balance": share * load_balancing_loss(probs, mask, load),
            "z": share * router_z_loss(routing.logits, mask),
            "skill": supervised * skill_loss(probs, batch["skills"], mask),
            "routing": share * token_mean(routing.weights.detach(), mask),
        }


@torch.no_grad()
def load_of_step(
    model: nn.Module, batches: Sequence[Batch], router: RouterSettings, processes: Processes
) -> Float[Tensor, "site expert"]:
    """Each expert's load over a step of several batches, which a first look at all of them gives.

    The balance loss multiplies each expert's load, which has no gradient, by its mean probability,
    which has. With the load of the whole step the parts of the batches add up to its loss; with a
    batch's own every batch would be asked to be balanced, however few texts it has. Costs one more
    forward pass, without logits; random numbers are drawn as they will be again.
    """
    device = batches[0]["input_ids"].device
    sums, tokens = torch.zeros((), device=device), torch.zeros((), device=device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for batch in batches:
            mask = _mask(batch)
            output = model(
                batch["input_ids"], batch["attention_mask"], record=True, logits_to_keep=1
            )
            sums = sums + expert_load(compared(output.routing.probs, router), mask) * mask.sum()
            tokens = tokens + mask.sum()
    return load_over_processes(sums / tokens, tokens, processes)


def load_over_processes(
    load: Float[Tensor, "site expert"], tokens: Tensor, processes: Processes
) -> Float[Tensor, "site expert"]:
    """The load over the tokens of all processes, from that over a process's own."""
    if processes.count == 1:
        return load
    sums = processes.sum(torch.cat([(load * tokens).flatten(), tokens[None].to(load.dtype)]))
    return (sums[:-1] / sums[-1]).view_as(load)


def compared(
    probs: Float[Tensor, "batch seq site expert"], router: RouterSettings
) -> Float[Tensor, "batch seq site expert"]:
    """Probabilities as the losses compare them."""
    return routing_shares(probs) if router.activation == "sigmoid" else probs


def _mask(batch: Batch) -> Tensor:
    return batch["attention_mask"].bool()


def _supervised(batch: Batch) -> Tensor:
    return _mask(batch) & (batch["skills"] >= 0)[:, None]
