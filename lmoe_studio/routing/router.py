"""Router: what turns hidden states into routing weights, and what every kind of router shares.

A kind of router only says how it scores; activation, temperature and top-k are done here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lmoe_studio.config import RouterSettings


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of one forward pass: what a router or a plan may know besides hidden states."""

    ids: Int[Tensor, "batch seq"]
    positions: Int[Tensor, "batch seq"]
    """Place in the sequence, padding not counted."""
    is_token: Bool[Tensor, "batch seq"]
    """False for padding."""
    steps: Int[Tensor, "batch seq"]
    """How many tokens the model had written before each; -1 for those of the prompt."""

    def part(self, here: slice) -> "TokenBatch":
        """Some of the tokens of each row."""
        return TokenBatch(
            self.ids[:, here], self.positions[:, here], self.is_token[:, here], self.steps[:, here]
        )


@dataclass(frozen=True)
class RouterOutput:
    """What a router says about each token."""

    logits: Float[Tensor, "batch seq expert"]
    probs: Float[Tensor, "batch seq expert"]
    """softmax or sigmoid of `logits / temperature`, before top-k."""
    weights: Float[Tensor, "batch seq expert"]
    """`probs` after top-k: dense, zero where unused."""


@dataclass(frozen=True)
class RouterSpec:
    """What a router is made from: the same for every kind."""

    settings: RouterSettings
    experts: tuple[str, ...]
    """Names, in the bank's order."""
    d_in: int
    """Width of the hidden states it will read."""
    state: Mapping[str, Tensor]
    """Its tensors by name: those that were saved, or are made of the experts; empty for a new one."""


class Router(nn.Module):
    """Scores experts from hidden states, in float32 whatever the base model's type is.

    A subclass says how it scores and whether it learns; `registry.py` lists them.
    """

    learned = False
    """Whether it has parameters to train."""

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__()
        self.settings = spec.settings

    @staticmethod
    def saved_shapes(
        num_experts: int,  # noqa: ARG004
        d_in: int | None,  # noqa: ARG004
    ) -> dict[str, tuple[int | None, ...]]:
        """All tensors that a bank keeps of it, by name; `d_in` is None where nobody knows it yet."""
        return {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """What `to`, `half` and `double` go through: it moves with the model and keeps its type."""

        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            if found.dtype == tensor.dtype:
                return found
            return tensor.to(found.device)

        return super()._apply(moved, recurse)

    def score(
        self,
        hidden: Float[Tensor, "batch seq d_in"],
        shrink: Float[Tensor, "batch seq 1"],
        tokens: TokenBatch,
    ) -> Float[Tensor, "batch seq expert"]:
        """Router logits from float32 hidden states and what RMS normalisation multiplies them by.

        Apart, because a router that is linear in the hidden states can multiply its few scores
        instead of the wide states, which training would have to keep a second time.
        """
        raise NotImplementedError

    def forward(self, hidden: Float[Tensor, "batch seq d_in"], tokens: TokenBatch) -> RouterOutput:
        if torch.is_autocast_enabled(hidden.device.type):
            with torch.autocast(hidden.device.type, enabled=False):
                return self._route(hidden, tokens)
        return self._route(hidden, tokens)

    def _route(self, hidden: Float[Tensor, "batch seq d_in"], tokens: TokenBatch) -> RouterOutput:
        hidden = hidden.float()
        logits = self.score(hidden, inverse_rms(hidden), tokens)
        probs = activate(logits, self.settings)
        return RouterOutput(logits, probs, keep_top_k(probs, self.settings))

    def gate(self, logits: Float[Tensor, "batch seq expert"]) -> Float[Tensor, "batch seq expert"]:
        """The weights that this router makes of logits, its own or changed ones."""
        return keep_top_k(activate(logits, self.settings), self.settings)


def inverse_rms(
    hidden: Float[Tensor, "*batch d_in"], eps: float = 1e-6
) -> Float[Tensor, "*batch 1"]:
    """What RMS normalisation without parameters multiplies by: `1 / sqrt(mean(h²) + eps)`.

    Deep blocks' large states then do not saturate a softmax.
    """
    norm = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
    return (norm.square() / hidden.shape[-1] + eps).rsqrt()


def activate(
    logits: Float[Tensor, "*batch expert"], settings: RouterSettings
) -> Float[Tensor, "*batch expert"]:
    """Router probabilities: softmax (they sum to 1) or sigmoid (they need not)."""
    scaled = logits if settings.temperature == 1 else logits / settings.temperature
    return scaled.softmax(dim=-1) if settings.activation == "softmax" else scaled.sigmoid()


def keep_top_k(
    probs: Float[Tensor, "*batch expert"], settings: RouterSettings
) -> Float[Tensor, "*batch expert"]:
    """Zero all but the k largest; with `renormalise` the kept ones sum as all did before."""
    if settings.top_k is None or settings.top_k >= probs.shape[-1]:
        return probs
    top = probs.topk(settings.top_k, dim=-1)
    kept = torch.zeros_like(probs).scatter(-1, top.indices, top.values)
    if not settings.renormalise:
        return kept
    total = kept.sum(dim=-1, keepdim=True).clamp_min(
        torch.finfo(kept.dtype).tiny
    )  # sigmoids vanish
    return kept * (probs.sum(dim=-1, keepdim=True) / total)
