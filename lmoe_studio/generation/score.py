"""How likely a given text is after a prompt, under several plans, in one pass."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch

from lmoe_studio.mixture import MixtureModel
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.routing.settle import PlanRow, needs_text
from lmoe_studio.tracing.token_texts import TokenTexts


@torch.inference_mode()
def score_continuation(
    model: MixtureModel,
    texts: TokenTexts,
    before: list[int],
    after: list[int],
    plans: Sequence[RoutingPlan | None],
    *,
    turn: AbstractContextManager[object],
) -> list[float]:
    """Log-probability in nats of `after` following `before`, by plan.

    The tokens of `after` count as generated, the first of them being step 0.
    """
    device = next(model.parameters()).device
    ids = torch.tensor([before + after] * len(plans), device=device)
    steps = torch.arange(ids.shape[1], device=device) - len(before)
    settled = [_settle(plan, texts, before, after) for plan in plans]
    with turn:
        output = model(
            ids,
            plan=settled,
            steps=steps.clamp_min(-1).expand_as(ids),
            logits_to_keep=len(after) + 1,
        )
    target = torch.tensor(after, device=device)[:, None]
    return [
        float(row[:-1].float().log_softmax(dim=-1).gather(-1, target).sum())
        for row in output.logits
    ]


def _settle(
    plan: RoutingPlan | None, texts: TokenTexts, before: list[int], after: list[int]
) -> RoutingPlan | None:
    if plan is None or not needs_text(plan):
        return plan
    parts = texts.parts(before + after)
    return PlanRow(parts[: len(before)]).for_continuation(plan, parts[len(before) :])
