"""How likely a given text is after a prompt, under several plans."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch

from lmoe_studio.generation.shared_prompts import PromptReadings, windows
from lmoe_studio.mixture.model import MixtureModel
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

    The tokens of `after` count as generated, the first of them being step 0. Long texts are read
    window by window, under the cache: what is held of them does not grow with their length.
    """
    device = next(model.parameters()).device
    settled = [_settle(plan, texts, before, after) for plan in plans]
    readings = PromptReadings.of([before] * len(plans), settled)
    prompts = torch.tensor(readings.prompts, device=device)
    cache, last = None, None
    for where in windows(model, len(before), len(prompts)):
        with turn:
            read = model(
                prompts[:, where],
                plan=readings.plans,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        cache, last = read.past_key_values, read.logits
    assert cache is not None
    assert last is not None
    of_row = torch.tensor(readings.of_row or range(len(plans)), device=device)
    cache.batch_select_indices(of_row)
    last = last[of_row]
    target = torch.tensor(after, device=device).expand(len(plans), -1)
    steps = torch.arange(len(after), device=device).expand_as(target)
    scores = [0.0] * len(plans)
    for where in windows(model, len(after), len(plans)):
        with turn:
            read = model(
                target[:, where],
                plan=settled,
                steps=steps[:, where],
                past_key_values=cache,
                use_cache=True,
            )
        ahead = [last, read.logits[:, :-1]]  # what foretold each token of the window
        for row, ids in enumerate(target[:, where]):
            logits = torch.cat([part[row] for part in ahead]).float()
            scores[row] += float(logits.log_softmax(dim=-1).gather(-1, ids[:, None]).sum())
        cache, last = read.past_key_values, read.logits[:, -1:].clone()
    return scores


def _settle(
    plan: RoutingPlan | None, texts: TokenTexts, before: list[int], after: list[int]
) -> RoutingPlan | None:
    if plan is None or not needs_text(plan):
        return plan
    parts = texts.parts(before + after)
    return PlanRow(parts[: len(before)]).for_continuation(plan, parts[len(before) :])
