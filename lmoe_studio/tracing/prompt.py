"""record_prompt: the trace of a given text, read piece by piece under the cache.

So a long text can tell how far it is, be stopped, and let others have their turn; and the logits of a
piece, not of the whole text, lie in memory at once.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from lmoe_studio.errors import OverflowedError
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.given import PlansLike
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.tracing.recorder import settle_prompt
from lmoe_studio.tracing.recording import Recording
from lmoe_studio.tracing.records import RoutingTrace
from lmoe_studio.tracing.token_texts import TokenTexts

_PIECE_ON_CPU, _PIECE_ELSEWHERE = 256, 1024


@torch.inference_mode()
def record_prompt(
    model: MixtureModel,
    texts: TokenTexts,
    ids: list[int],
    *,
    plan: PlansLike = None,
    alternatives: int = 5,
    contributions: bool = False,
    piece: int | None = None,
    turn: AbstractContextManager[object] | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RoutingTrace:
    """Trace a text, or as much of it as is read until someone stops.

    Args:
        model: the routed model.
        texts: gives the tokens' texts.
        ids: the text's token ids, at least one.
        plan: what to change about the routing.
        alternatives: how many of the likeliest tokens to note for each position.
        contributions: also note how much each expert added.
        piece: tokens of one forward pass, where the text may be cut; None suits the device.
        turn: entered for each forward pass.
        on_progress: hears after each pass how many tokens are read, and of how many.
        should_stop: asked after each pass.

    Raises:
        OverflowedError: the model's scores are not finite.
        PlanError: another thread has folded a blend.
    """
    device = next(model.parameters()).device
    piece = piece or (_PIECE_ON_CPU if device.type == "cpu" else _PIECE_ELSEWHERE)
    piece = len(ids) if model.reads_whole_prompts else piece
    batch = torch.tensor([ids], device=device)
    settled = settle_prompt(plan, texts, ids) if isinstance(plan, RoutingPlan) else plan
    ran_under = plan if isinstance(plan, RoutingPlan) else None
    recording, cache = Recording(alternatives, contributions=contributions), None
    for start in range(0, len(ids), piece):
        part = batch[:, start : start + piece]
        with turn or nullcontext():
            if model.folded is not None:
                model.folded.refuse_others()
                ran_under = model.folded.plan
            output = model(
                part,
                plan=settled,
                past_key_values=cache,
                use_cache=len(ids) > piece,
                record=True,
                contributions=contributions,
            )
        if not output.logits[0, -1].isfinite().all():  # what overflows anywhere gets here
            raise OverflowedError(len(ids))
        cache = output.past_key_values
        recording.add(part, output)
        on_progress(recording.length, len(ids))
        if should_stop():
            break
    read = ids[: recording.length]
    return recording.trace(model, texts, read, plan=ran_under)
