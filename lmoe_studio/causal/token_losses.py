"""The loss of every token under several plans: what every what-if run is made of."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lmoe_studio.mixture import MixtureModel
from lmoe_studio.routing.plan import RoutingPlan

_WINDOW = 1024  # tokens of a row that are read at once
_PASS = 2048  # tokens of one forward pass, all rows together: bounds the logits' memory


@torch.inference_mode()
def token_losses(
    model: MixtureModel, sequences: Sequence[list[int]], plans: Sequence[RoutingPlan | None]
) -> list[Tensor]:
    """Run sequences under each plan, several plans in one pass.

    Args:
        model: the routed model.
        sequences: token ids; best of like length, as shorter ones are padded.
        plans: with no scope that only texts can settle; None is the router alone.

    Returns:
        One tensor a sequence, `[plan, token]` in float32 on the CPU: nats of each token but the
        first, given those before it.
    """
    ids = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    each = len(sequences) * min(_WINDOW, ids.shape[1])
    many = max(1, _PASS // each)
    parts = [
        _run(model, ids, mask, plans[start : start + many]) for start in range(0, len(plans), many)
    ]
    losses = torch.cat(parts)
    return [losses[:, row, : len(sequence) - 1] for row, sequence in enumerate(sequences)]


def _run(
    model: MixtureModel, ids: Tensor, mask: Tensor, plans: Sequence[RoutingPlan | None]
) -> Tensor:
    """Losses `[plan, sequence, token]`; a long row is read window by window under the cache."""
    device = next(model.parameters()).device
    rows = ids.repeat(len(plans), 1).to(device)
    is_token = None if mask.all() else mask.repeat(len(plans), 1).to(device)
    each = [plan for plan in plans for _ in ids]
    width, cache, parts = ids.shape[1], None, []
    for start in range(0, width - 1, _WINDOW):
        stop = min(start + _WINDOW, width)
        output = model(
            rows[:, start:stop],
            None if is_token is None else is_token[:, :stop],
            plan=each,
            past_key_values=cache,
            use_cache=stop < width,
        )
        cache = output.past_key_values
        targets = rows[:, start + 1 : stop + 1]
        logits = output.logits[:, : targets.shape[1]]
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
        parts.append(loss.view_as(targets).cpu())
    if not parts:  # single tokens, which nothing comes after
        return torch.zeros(len(plans), len(ids), 0)
    return torch.cat(parts, dim=1).view(len(plans), len(ids), -1)
