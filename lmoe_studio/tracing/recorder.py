"""Forward passes become traces: detached, in float32, once for every token."""

import importlib.metadata
import uuid
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmoe_studio.mixture import MixtureModel, PlanArgument, RoutingRecord
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.tracing.records import FloatArray, RoutingTrace
from lmoe_studio.tracing.token_texts import TokenTexts

VERSIONS = ("lmoe-studio", "torch", "transformers")
_CHUNK = 128  # positions whose vocabulary-wide log-probabilities are held at once
_BLOCK = 128  # of the vocabulary, in the search for the likeliest tokens


@dataclass(frozen=True)
class TokenScores:
    """What the model thought of each token before it came; the first position has no thought."""

    logprobs: FloatArray
    ranks: NDArray[np.int32]
    entropies: FloatArray
    alternative_ids: NDArray[np.int32]
    alternative_logprobs: FloatArray


@torch.inference_mode()
def record_prompt(
    model: MixtureModel,
    texts: TokenTexts,
    ids: list[int],
    *,
    plan: PlanArgument = None,
    alternatives: int = 5,
    contributions: bool = False,
) -> RoutingTrace:
    """Trace one forward pass over a prompt.

    Args:
        model: the routed model.
        texts: gives the tokens' texts.
        ids: the prompt's token ids, at least one.
        plan: what to change about the routing.
        alternatives: how many of the likeliest tokens to note for each position.
        contributions: also note how much each expert added.
    """
    device = next(model.parameters()).device
    batch = torch.tensor([ids], device=device)
    output = model(batch, plan=plan, record=True, contributions=contributions)
    assert output.routing is not None
    scores = score_tokens(output.logits[0], batch[0], alternatives)
    return make_trace(model, texts, ids, output.routing, scores, plan=plan)


def make_trace(
    model: MixtureModel,
    texts: TokenTexts,
    ids: list[int],
    routing: RoutingRecord,
    scores: TokenScores,
    *,
    plan: PlanArgument = None,
) -> RoutingTrace:
    """Put the records of one sequence (row 0) together."""
    modules = [site.module for site in model.sites if site.module]
    special = np.isin(np.array(ids), texts.special_ids)
    changed = routing.weights[0] != routing.router_weights[0]
    return RoutingTrace(
        run=uuid.uuid4().hex[:12],
        bank=model.bank.name,
        base=model.bank.base.id,
        experts=model.bank.expert_names,
        site_layers=tuple(site.layer for site in model.sites),
        site_modules=tuple(modules) or None,
        token_ids=np.array(ids, np.int32),
        tokens=texts.sequence(ids),
        generated=np.zeros(len(ids), np.bool_),
        special=special,
        router_logits=_array(routing.logits[0]),
        router_probs=_array(routing.probs[0]),
        routing_weights=_array(routing.weights[0]),
        overridden=changed.cpu().numpy(),
        contributions=None if routing.contributions is None else _array(routing.contributions[0]),
        logprobs=scores.logprobs,
        ranks=scores.ranks,
        entropies=scores.entropies,
        alternative_ids=scores.alternative_ids,
        alternative_logprobs=scores.alternative_logprobs,
        alternative_tokens=tuple(
            tuple(map(texts.alone, row)) for row in scores.alternative_ids.tolist()
        ),
        plan=plan.to_json() if isinstance(plan, RoutingPlan) and plan else None,
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
    )


def score_tokens(logits: Tensor, ids: Tensor, alternatives: int) -> TokenScores:
    """Log-probability, rank, entropy and alternatives of each token, a stretch at a time.

    Args:
        logits: `[seq, vocab]`, of the positions of `ids`.
        ids: `[seq]`.
        alternatives: how many of the likeliest tokens to keep.
    """
    seq = len(ids)
    logprobs = np.full(seq, np.nan, np.float32)
    entropies = np.full(seq, np.nan, np.float32)
    ranks = np.zeros(seq, np.int32)
    top_ids = np.full((seq, alternatives), -1, np.int32)
    top_logprobs = np.full((seq, alternatives), np.nan, np.float32)
    for start in range(0, seq - 1, _CHUNK):
        span = slice(start + 1, min(start + 1 + _CHUNK, seq))  # the tokens that are predicted
        scores = logits[start : span.stop - 1].float()
        total = scores.logsumexp(dim=-1, keepdim=True)
        own = scores.gather(-1, ids[span, None])
        best, best_ids = _largest(scores, alternatives)
        # Entropy is Σ p (total - score); the product is summed without being stored.
        expected = torch.linalg.vecdot((scores - total).exp_(), scores)
        logprobs[span] = (own - total)[:, 0].cpu().numpy()
        ranks[span] = ((scores > own).sum(dim=-1) + 1).cpu().numpy()
        entropies[span] = (total[:, 0] - expected).cpu().numpy()
        top_ids[span] = best_ids.cpu().numpy()
        top_logprobs[span] = (best - total).cpu().numpy()
    return TokenScores(logprobs, ranks, entropies, top_ids, top_logprobs)


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`scores.topk(k)` for a wide last axis, three times as fast on a CPU.

    The k largest lie in the k blocks with the largest maxima; only those are searched.
    """
    rows, vocab = scores.shape
    blocks = vocab // _BLOCK
    if k == 0 or k > blocks or vocab % _BLOCK:
        best = scores.topk(k, dim=-1)
        return best.values, best.indices
    blocked = scores.view(rows, blocks, _BLOCK)
    chosen = blocked.amax(dim=-1).topk(k, dim=-1).indices
    candidates = blocked.gather(1, chosen[..., None].expand(-1, -1, _BLOCK)).flatten(1)
    best = candidates.topk(k, dim=-1)
    block = chosen.gather(1, best.indices // _BLOCK)
    return best.values, block * _BLOCK + best.indices % _BLOCK


def _array(tensor: Tensor) -> FloatArray:
    return tensor.float().cpu().numpy()
