"""The loss of every token under several plans: what every what-if run is made of."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.tracing.batches import padded

_WINDOW = 1024  # tokens of a row that are read at once
_PASS = 2048  # tokens of one forward pass, all rows together: bounds the logits' memory


@torch.inference_mode()
def token_losses(
    model: MixtureModel,
    sequences: Sequence[Sequence[int]],
    plans: Sequence[RoutingPlan | Sequence[RoutingPlan | None] | None],
    *,
    turn: AbstractContextManager[object] | None = None,
) -> list[Float[Tensor, "plan token"]]:
    """Run sequences under each plan, several plans in one pass.

    Args:
        model: the routed model.
        sequences: token ids; best of like length, as shorter ones are padded.
        plans: each for all sequences, or a list with one a sequence; None is the router alone.
            They have no scope that only texts can settle.
        turn: entered for each forward pass.

    Returns:
        For each sequence `[plan, token]`, in float32 on the CPU: nats of every token but the first,
        given those before it.
    """
    ids, mask = padded(sequences)
    many = max(1, _PASS // (len(sequences) * min(_WINDOW, ids.shape[1])))
    each = [plan if isinstance(plan, Sequence) else [plan] * len(sequences) for plan in plans]
    parts = [
        _run(model, ids, mask, each[start : start + many], turn or nullcontext())
        for start in range(0, len(plans), many)
    ]
    losses = torch.cat(parts)
    return [losses[:, row, : len(sequence) - 1] for row, sequence in enumerate(sequences)]


def _run(
    model: MixtureModel,
    ids: Tensor,
    mask: Tensor | None,
    plans: Sequence[Sequence[RoutingPlan | None]],
    turn: AbstractContextManager[object],
) -> Float[Tensor, "plan sequence token"]:
    """A long row is read window by window, under the cache."""
    device = next(model.parameters()).device
    rows = ids.repeat(len(plans), 1).to(device)
    is_token = None if mask is None else mask.repeat(len(plans), 1).to(device)
    plan_of_row = [plan for each in plans for plan in each]
    width, cache = ids.shape[1], None
    losses = torch.zeros(len(rows), max(0, width - 1))
    window = width if model.reads_whole_prompts else _WINDOW
    for start in range(0, width - 1, window):
        stop = min(start + window, width)
        with turn:
            output = model(
                rows[:, start:stop],
                None if is_token is None else is_token[:, :stop],
                plan=plan_of_row,
                past_key_values=cache,
                use_cache=stop < width,
            )
        cache = output.past_key_values
        targets = rows[:, start + 1 : stop + 1]
        for row, logits in enumerate(output.logits[:, : targets.shape[1]]):  # in float32 row by row
            loss = F.cross_entropy(logits.float(), targets[row], reduction="none")
            losses[row, start : start + targets.shape[1]] = loss
    return losses.unflatten(0, (len(plans), len(ids)))
