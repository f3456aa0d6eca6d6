"""adapt: a few gradient steps of a bank's routers on some texts (WEMoE's test-time adaptation).

Half of each text is learned from; on the other half it is measured whether that helped. No label is
needed. With the objective `entropy` (arXiv 2402.00433) the routers learn to make the base model sure of
what comes next, which may also make it surely wrong; so the routers that are kept are those under which
the other half is likeliest, and where no step made it likelier, those that there were.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from lmoe_studio.config import Config
from lmoe_studio.errors import ConfigError, OverflowedError, TextError
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.tracing.batches import batches_of_like_length, padded

_LONGEST = 1024  # tokens of one row; a longer text is several
_PASS = 1024  # tokens of one pass with gradients: bounds their memory
State = dict[str, nn.Parameter]


class AdaptOptions(Config):
    """How routers are adapted."""

    objective: Literal["entropy", "language"] = Field(
        default="entropy",
        description="What falls: the entropy of the next token, or the loss of the one that came.",
    )
    steps: int = Field(default=20, ge=1, le=10_000, description="Of Adam, without decay.")
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    held_out: float = Field(
        default=0.5, gt=0, lt=1, description="Share of each text that is measured, its end."
    )


@dataclass(frozen=True)
class AdaptStep:
    """One step, and what the parts of the texts that nothing is learned from are under it."""

    step: int
    """From 1; 0 is before the first."""
    loss: float
    """The objective in nats a token, of what is learned from, as the step found it; NaN for 0."""
    held_out_loss: float
    """Nats a token."""
    held_out_entropy: float
    """Of the distributions that the tokens are foretold by, in nats."""


@dataclass(frozen=True, eq=False)
class Adapted:
    """Routers that were adapted."""

    state: dict[str, Tensor]
    """Their tensors, by name as in `ExpertBank.router_state`."""
    before: AdaptStep
    after: AdaptStep
    """The step that is kept; `before` where none was better."""
    options: AdaptOptions
    frame: pd.DataFrame
    """A row a step: step, objective, loss, held_out_loss, held_out_entropy."""

    @property
    def steps(self) -> int:
        """How many are kept."""
        return self.after.step

    @property
    def report(self) -> dict[str, Any]:
        """Plain values, for a file."""
        lines = {"before": self.before, "after": self.after}
        held_out = {
            name: {"loss": one.held_out_loss, "entropy": one.held_out_entropy}
            for name, one in lines.items()
        }
        return {"options": self.options.model_dump(), "step": self.steps, "held_out": held_out}


@dataclass(frozen=True)
class _Row:
    """Tokens of a text, and those of them that count, from `first` on; the others lead to them."""

    ids: Sequence[int]
    first: int = 1


def adapt(
    model: MixtureModel,
    texts: Iterable[Sequence[int]],
    *,
    on_step: Callable[[AdaptStep], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    **options: Any,
) -> Adapted:
    """Adapt routers of any kind that learns. The model is left as it is.

    Each step reads all texts, so they are to be some pages; for more there is training
    (`mode: router`). A router that decides once for a whole prompt has, where it is measured, read
    what it is measured on.

    Args:
        model: the routed model; nobody else may run it meanwhile.
        texts: token ids of each; texts of fewer than three are passed over.
        on_step: hears each step.
        should_stop: asked before each step.
        options: those of `AdaptOptions`.

    Raises:
        ConfigError: an option is out of range, or the router has nothing to learn.
        TextError: no text is long enough.
        OverflowedError: the model's scores are not finite.
    """
    asked = AdaptOptions.parse(options, source="Adaptation")
    names = _learned(model)
    learned, held_out = _halves(texts, asked.held_out)
    parameters = dict(model.named_parameters())
    state = {name: nn.Parameter(parameters[name].detach().clone()) for name in names}
    adam = torch.optim.Adam(state.values(), lr=asked.learning_rate)
    done = [AdaptStep(0, math.nan, *_measured(model, state, held_out))]
    if not math.isfinite(done[0].held_out_loss):
        raise OverflowedError(max(len(row.ids) for row in held_out))
    best, kept = done[0], _copied(state)
    while done[-1].step < asked.steps and not should_stop():
        loss = _learn(model, state, learned, asked.objective)
        adam.step()
        step = AdaptStep(done[-1].step + 1, loss, *_measured(model, state, held_out))
        done.append(step)
        on_step(step)
        if not math.isfinite(step.held_out_loss):
            break
        if step.held_out_loss < best.held_out_loss:
            best, kept = step, _copied(state)
    frame = pd.DataFrame(done)
    frame.insert(1, "objective", asked.objective)
    found = {names[name]: tensor for name, tensor in kept.items()}
    return Adapted(model.bank.router_state | found, done[0], best, asked, frame)


def entropies(logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    """`-Σ p log(p + 1e-8)` of each distribution, in nats, as published."""
    probs = logits.softmax(dim=-1)
    return -(probs * (probs + 1e-8).log()).sum(dim=-1)


def _losses(
    logits: Float[Tensor, "token vocab"], targets: Int[Tensor, " token"]
) -> Float[Tensor, " token"]:
    return F.cross_entropy(logits, targets, reduction="none")


def _learned(model: MixtureModel) -> dict[str, str]:
    """The routers' parameters: their names in the model, and in the bank's files."""
    names = model.router_parameters()
    if not names:
        raise ConfigError(
            f"Router '{model.bank.router.kind}' of bank '{model.bank.name}' has nothing to learn, so "
            "that it cannot be adapted; take a bank with a trained router, such as linear."
        )
    return names


def _halves(texts: Iterable[Sequence[int]], held_out: float) -> tuple[list[_Row], list[_Row]]:
    """What is learned from and what is measured: of each text at least one token either way."""
    learned, measured = list[_Row](), list[_Row]()
    for text in texts:
        for start in range(0, len(text), _LONGEST):
            ids = text[start : start + _LONGEST]
            if len(ids) > 2:
                cut = min(max(len(ids) - round(len(ids) * held_out), 2), len(ids) - 1)
                learned.append(_Row(ids[:cut]))
                measured.append(_Row(ids, cut))
    if not learned:
        raise TextError(
            "No text has three tokens: one to begin with, one to learn from and one to be measured "
            "on; give a longer one."
        )
    return learned, measured


@torch.enable_grad()
def _learn(model: MixtureModel, state: State, rows: Sequence[_Row], objective: str) -> float:
    """The mean objective, whose gradient is left in the state."""
    count, total = sum(len(row.ids) - row.first for row in rows), 0.0
    for tensor in state.values():
        tensor.grad = torch.zeros_like(tensor)
    for batch in _passes(model, state, rows):
        each = [
            entropies(logits) if objective == "entropy" else _losses(logits, targets)
            for logits, targets in batch
        ]
        loss = torch.cat(each).sum() / count
        found = torch.autograd.grad(loss, list(state.values()), materialize_grads=True)
        for tensor, gradient in zip(state.values(), found, strict=True):
            assert tensor.grad is not None
            tensor.grad += gradient
        total += float(loss.detach())
    return total


@torch.no_grad()
def _measured(model: MixtureModel, state: State, rows: Sequence[_Row]) -> tuple[float, float]:
    """Language loss and entropy, in nats a token."""
    losses, found = list[Tensor](), list[Tensor]()
    for batch in _passes(model, state, rows):
        for logits, targets in batch:
            losses.append(_losses(logits, targets))
            found.append(entropies(logits))
    return float(torch.cat(losses).mean()), float(torch.cat(found).mean())


def _passes(
    model: MixtureModel, state: State, rows: Sequence[_Row]
) -> Iterator[Iterator[tuple[Float[Tensor, "token vocab"], Int[Tensor, " token"]]]]:
    """For each pass, of each text the logits of the tokens that count, in float32, and those tokens."""
    device = next(iter(state.values())).device
    fixed = {  # parameters all, as a module may ask for them as such
        name: nn.Parameter(one.detach(), requires_grad=False)
        for name, one in model.named_parameters()
        if one.requires_grad
    }
    for batch in batches_of_like_length(rows, lambda row: len(row.ids), _PASS):
        ids, mask = padded([row.ids for row in batch])
        ids, mask = ids.to(device), None if mask is None else mask.to(device)
        output = functional_call(model, {**fixed, **state}, (ids, mask))
        yield (
            (logits[row.first - 1 : len(row.ids) - 1].float(), one[row.first : len(row.ids)])
            for row, logits, one in zip(batch, output.logits, ids, strict=True)
        )


def _copied(state: State) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
