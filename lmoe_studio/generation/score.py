"""How likely a given text is after a prompt, under several plans."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch

from lmoe_studio.generation.shared_prompts import PromptReadings
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
    settled = [_settle(plan, texts, before, after) for plan in plans]
    readings = PromptReadings.of([before] * len(plans), settled)
    of_row = torch.tensor(readings.of_row or range(len(plans)), device=device)
    prompts, target = (
        torch.tensor(readings.prompts, device=device),
        torch.tensor(after, device=device),
    )
    steps = torch.arange(len(after), device=device).expand(len(plans), -1)
    with turn:
        read = model(prompts, plan=readings.plans, use_cache=True, logits_to_keep=1)
        cache = read.past_key_values
        cache.batch_select_indices(of_row)
        rest = model(
            target.expand(len(plans), -1), plan=settled, steps=steps, past_key_values=cache
        )
    logits = torch.cat([read.logits[of_row], rest.logits[:, :-1]], dim=1)
    return [
        float(row.float().log_softmax(dim=-1).gather(-1, target[:, None]).sum()) for row in logits
    ]


def _settle(
    plan: RoutingPlan | None, texts: TokenTexts, before: list[int], after: list[int]
) -> RoutingPlan | None:
    if plan is None or not needs_text(plan):
        return plan
    parts = texts.parts(before + after)
    return PlanRow(parts[: len(before)]).for_continuation(plan, parts[len(before) :])
