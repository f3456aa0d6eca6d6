"""distil: a bank's learned router becomes one that reads token ids alone (Read-ME, arXiv 2410.19123).

Teacher is the router of the bank, whose shares are recorded once; the student alone is trained, and
needs no pass of the base model.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from lmoe_studio.base_models import BaseModel, over_same_weights
from lmoe_studio.config import Config
from lmoe_studio.errors import ConfigError, TextError
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.mixture.base_pass import token_batch
from lmoe_studio.mixture.call import RoutingRecord
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.distillation import agreement, distillation_loss
from lmoe_studio.routing.registry import router_class
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.tracing.batches import batches_of_like_length, padded

_LONGEST = 512  # tokens of one row; a longer text is several
_PASS = 2048  # tokens of one step


class DistilOptions(Config):
    """How a router is distilled."""

    steps: int = Field(default=500, ge=1, le=1_000_000, description="Of Adam, a batch each.")
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    held_out: float = Field(
        default=0.1, gt=0, lt=1, description="Share of the rows that is measured only."
    )


@dataclass(frozen=True)
class Likeness:
    """How far a student is from its teacher on rows that it did not learn from."""

    kl: float
    """Mean over tokens and layers of `KL(teacher ‖ student)`, in nats."""
    agreement: float
    """Share of tokens and layers with the same first choice."""


@dataclass(frozen=True, eq=False)
class Distilled:
    """A bank under a router of ids, and how like it is to the router that it repeats."""

    bank: ExpertBank
    before: Likeness
    after: Likeness
    by_layer: pd.DataFrame
    """A row a layer: layer, agreement."""


@dataclass(frozen=True)
class _Batch:
    ids: Int[Tensor, "batch seq"]
    is_token: Bool[Tensor, "batch seq"]
    teacher: Float[Tensor, "batch seq layer expert"]


def distil(
    base: BaseModel,
    teacher: MixtureModel,
    texts: Sequence[Sequence[int]],
    *,
    settings: RouterSettings | None = None,
    on_step: Callable[[int, float], None] = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
    **options: Any,
) -> Distilled:
    """Train a router of ids to give each token the shares that a bank's router gives it.

    Args:
        base: the bank's base model, which is left as it is.
        teacher: the routed model; likewise.
        texts: token ids of each.
        settings: of a kind that reads ids; None takes one route for all layers.
        on_step: hears each step, from 1, and its loss.
        should_stop: asked before each step; the student is then what it is by now.
        options: those of `DistilOptions`.

    Raises:
        ConfigError: an option is out of range, or the kind does not read ids, or the teacher does.
        TextError: there are not two rows of two tokens, one to learn from and one to be measured on.
    """
    asked = DistilOptions.parse(options, source="Distillation")
    settings = settings or RouterSettings(kind="pre", scope="shared")
    if router_class(settings.kind).reads != "ids":
        raise ConfigError(
            f"A router of kind '{settings.kind}' reads hidden states; distil into one of ids: pre."
        )
    learned, held_out = _parts(teacher, texts, asked.held_out)
    bank = teacher.bank.with_router(settings)
    student = MixtureModel(over_same_weights(base.model), bank, new_routers=True).eval()
    parameters = list(student.routers.parameters())
    adam = torch.optim.Adam(parameters, lr=asked.learning_rate)
    before, _ = _likeness(student, held_out)
    for step in range(asked.steps):
        if should_stop():
            break
        batch = learned[step % len(learned)]
        with torch.enable_grad():
            loss = distillation_loss(_logits(student, batch), batch.teacher, batch.is_token)
            found = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, found, strict=True):
            parameter.grad = gradient
        adam.step()
        on_step(step + 1, float(loss.detach()))
    after, by_layer = _likeness(student, held_out)
    saved = {
        name: student.get_parameter(own).detach().to("cpu", copy=True)
        for own, name in student.router_parameters().items()
    }
    frame = pd.DataFrame(
        {"layer": [site.layer for site in student.sites], "agreement": by_layer.tolist()}
    )
    return Distilled(teacher.bank.with_router(settings, saved), before, after, frame)


def _parts(
    teacher: MixtureModel, texts: Sequence[Sequence[int]], held_out: float
) -> tuple[list[_Batch], list[_Batch]]:
    """Every n-th row is held out."""
    rows = [text[at : at + _LONGEST] for text in texts for at in range(0, len(text), _LONGEST)]
    rows = [row for row in rows if len(row) > 1]
    if len(rows) < 2:
        raise TextError(
            f"The texts make {len(rows)} rows of at most {_LONGEST} tokens, and two are needed: one "
            "to learn from and one to be measured on; give more text."
        )
    every = max(2, round(1 / held_out))
    measured = rows[every - 1 :: every] or rows[-1:]
    if len(rows) >= every:
        learned = [row for place, row in enumerate(rows) if place % every != every - 1]
    else:
        learned = rows[:-1]
    return _taught(teacher, learned), _taught(teacher, measured)


@torch.inference_mode()
def _taught(teacher: MixtureModel, rows: Sequence[Sequence[int]]) -> list[_Batch]:
    """Batches of rows with what the teacher says of them: in each layer, shares that sum to 1."""
    device = next(teacher.parameters()).device
    found = list[_Batch]()
    for batch in batches_of_like_length(rows, len, _PASS):
        ids, mask = padded(batch)
        mask = torch.ones_like(ids) if mask is None else mask
        output = teacher(ids.to(device), mask.to(device), record=True, logits_to_keep=1)
        shares = _shares(teacher, output.routing)
        found.append(_Batch(ids, mask == 1, shares.cpu()))
    # Outside inference mode, so that gradients may go through what is computed with them.
    with torch.inference_mode(False):
        return [_Batch(*(tensor.clone() for tensor in astuple(one))) for one in found]


def _shares(
    teacher: MixtureModel, routing: RoutingRecord | None
) -> Float[Tensor, "batch seq layer expert"]:
    """Of routers whose weights need not sum to 1, the softmax; of several in a block, the mean."""
    assert routing is not None
    is_shares = teacher.bank.router.activation == "softmax" and teacher.bank.router.kind != "tree"
    shares = (routing.probs if is_shares else routing.logits.softmax(dim=-1)).float()
    layers = torch.tensor([site.layer for site in teacher.sites], device=shares.device)
    return torch.stack([shares[:, :, layers == one].mean(dim=2) for one in layers.unique()], dim=2)


def _logits(student: MixtureModel, batch: _Batch) -> Float[Tensor, "batch seq layer expert"]:
    device = next(student.routers.parameters()).device
    tokens = token_batch(batch.ids.to(device), batch.is_token.long().to(device), None, 0)
    return student.known_routing(tokens).logits.to(batch.teacher.device)


@torch.no_grad()
def _likeness(student: MixtureModel, batches: Sequence[_Batch]) -> tuple[Likeness, Tensor]:
    """Mean over all tokens, and the agreement layer by layer."""
    losses, agreed, count = 0.0, torch.zeros(()), 0
    for batch in batches:
        logits, tokens = _logits(student, batch), int(batch.is_token.sum())
        losses += float(distillation_loss(logits, batch.teacher, batch.is_token)) * tokens
        agreed = agreed + agreement(logits, batch.teacher, batch.is_token) * tokens
        count += tokens
    agreed = agreed / count
    return Likeness(losses / count, float(agreed.mean())), agreed
