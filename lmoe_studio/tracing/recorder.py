"""Forward passes become traces: detached, in float32, once for every token."""

import importlib.metadata
import uuid
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmoe_studio.mixture.call import RoutingRecord
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.given import PlansLike
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.routing.settle import PlanRow, needs_text
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

    def rows(self, where: slice) -> Self:
        """Those of some positions."""
        return type(self)(*(getattr(self, item.name)[where] for item in fields(self)))

    @classmethod
    def join(cls, parts: "list[TokenScores]") -> Self:
        """One after the other."""
        names = [item.name for item in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @classmethod
    def of(cls, trace: RoutingTrace, alternatives: int) -> Self:
        """Those of a trace; alternatives that it lacks are unknown."""
        found = cls.unknown(len(trace), alternatives)
        both = slice(min(alternatives, trace.alternative_ids.shape[1]))
        found.alternative_ids[:, both] = trace.alternative_ids[:, both]
        found.alternative_logprobs[:, both] = trace.alternative_logprobs[:, both]
        return replace(found, logprobs=trace.logprobs, ranks=trace.ranks, entropies=trace.entropies)

    @classmethod
    def unknown(cls, count: int, alternatives: int) -> Self:
        """Of positions that nothing was predicted for."""
        return cls(
            np.full(count, np.nan, np.float32),
            np.zeros(count, np.int32),
            np.full(count, np.nan, np.float32),
            np.full((count, alternatives), -1, np.int32),
            np.full((count, alternatives), np.nan, np.float32),
        )


def settle_prompt(plan: RoutingPlan, texts: TokenTexts, ids: list[int]) -> RoutingPlan | None:
    """A plan with the positions that its text scopes mean in a prompt."""
    if not needs_text(plan):
        return plan
    return PlanRow(texts.parts(ids)).for_prompt(plan)


def make_trace(
    model: MixtureModel,
    texts: TokenTexts,
    ids: list[int],
    routing: RoutingRecord,
    scores: TokenScores,
    *,
    plan: PlansLike = None,
    prompt_length: int | None = None,
    seed: int | None = None,
) -> RoutingTrace:
    """Put the records of one sequence (row 0) together.

    Args:
        model: the routed model.
        texts: gives the tokens' texts.
        ids: the sequence.
        routing: its routing, in row 0.
        scores: what the model thought of each token.
        plan: the plan it ran under.
        prompt_length: how many of the tokens are the prompt's; None for all.
        seed: of the sampling.
    """
    modules = [site.module for site in model.sites if site.module]
    special = np.isin(np.array(ids), texts.special_ids)
    overridden = (routing.weights[0] != routing.router_weights[0]).cpu().numpy()
    weights = _array(routing.weights[0])
    return RoutingTrace(
        run=uuid.uuid4().hex[:12],
        bank=model.bank.name,
        base=model.bank.base.id,
        experts=model.bank.expert_names,
        site_layers=tuple(site.layer for site in model.sites),
        site_modules=tuple(modules) or None,
        token_ids=np.array(ids, np.int32),
        tokens=texts.sequence(ids),
        generated=np.arange(len(ids)) >= (len(ids) if prompt_length is None else prompt_length),
        special=special,
        router_logits=_array(routing.logits[0]),
        router_probs=_array(routing.probs[0]),
        router_weights=_array(routing.router_weights[0]) if overridden.any() else weights,
        routing_weights=weights,
        overridden=overridden,
        contributions=None if routing.contributions is None else _array(routing.contributions[0]),
        logprobs=scores.logprobs,
        ranks=scores.ranks,
        entropies=scores.entropies,
        alternative_ids=scores.alternative_ids,
        alternative_logprobs=scores.alternative_logprobs,
        alternative_tokens=tuple(
            tuple(map(texts.alone, row)) for row in scores.alternative_ids.tolist()
        ),
        notes={name: _array(values[0]) for name, values in routing.notes.items()},
        router=model.bank.router.model_dump_json(),
        plan=plan.to_json() if isinstance(plan, RoutingPlan) and plan else None,
        seed=seed,
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
    )


def score_tokens(logits: Tensor, ids: Tensor, alternatives: int) -> TokenScores:
    """Log-probability, rank, entropy and alternatives of each token of a sequence.

    Args:
        logits: `[seq, vocab]`, of the positions of `ids`.
        ids: `[seq]`.
        alternatives: how many of the likeliest tokens to keep.
    """
    first = TokenScores.unknown(1, alternatives)
    return TokenScores.join([first, score_predictions(logits[:-1], ids[1:], alternatives)])


def score_predictions(logits: Tensor, ids: Tensor, alternatives: int) -> TokenScores:
    """The same for tokens and the logits that predicted each, a stretch at a time.

    Args:
        logits: `[count, vocab]`.
        ids: `[count]`.
        alternatives: how many of the likeliest tokens to keep.
    """
    found = TokenScores.unknown(len(ids), alternatives)
    for start in range(0, len(ids), _CHUNK):
        span = slice(start, start + _CHUNK)
        scores = logits[span].float()
        own = scores.gather(-1, ids[span, None])
        best, best_ids = _largest(scores, max(1, alternatives))
        probs = scores.softmax(dim=-1)
        # log Σ exp from the largest probability, which cannot have underflowed.
        total = best[:, :1] - probs.gather(-1, best_ids[:, :1]).log()
        expected = torch.einsum("tv,tv->t", probs, scores)  # entropy is Σ p (total - score)
        ahead = torch.gt(scores, own, out=probs).sum(dim=-1)  # into memory no longer needed
        found.logprobs[span] = (own - total)[:, 0].cpu().numpy()
        found.ranks[span] = (ahead.int() + 1).cpu().numpy()
        found.entropies[span] = (total[:, 0] - expected).cpu().numpy()
        found.alternative_ids[span] = best_ids[:, :alternatives].cpu().numpy()
        found.alternative_logprobs[span] = (best - total)[:, :alternatives].cpu().numpy()
    return found


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`scores.topk(k)` for a wide last axis, three times as fast on a CPU.

    The k largest lie in the k blocks with the largest maxima; only those are searched.
    """
    rows, vocab = scores.shape
    blocks = vocab // _BLOCK
    if k > blocks or vocab % _BLOCK:
        best = scores.topk(k, dim=-1)
        return best.values, best.indices
    blocked = scores.view(rows, blocks, _BLOCK)
    chosen = blocked.amax(dim=-1).topk(k, dim=-1).indices
    candidates = blocked.gather(1, chosen[..., None].expand(-1, -1, _BLOCK)).flatten(1)
    best = candidates.topk(k, dim=-1)
    block = chosen.gather(1, best.indices // _BLOCK)
    return best.values, block * _BLOCK + best.indices % _BLOCK


def _array(tensor: Tensor) -> NDArray[Any]:
    values = tensor.float() if tensor.is_floating_point() else tensor
    return values.cpu().numpy()
