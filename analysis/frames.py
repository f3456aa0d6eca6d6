"""Traces become tidy frames. The columns of both frames are documented here."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

PHASES = ["prompt", "generated"]


class RoutingLike(Protocol):
    """What a routing frame needs of a trace; `lmoe_studio.tracing.records.RoutingTrace` has it.

    Arrays are `[position, site, expert]` or `[position]`; a site is a decoder block, or a linear
    layer of one where every linear layer has a router of its own.
    """

    @property
    def run(self) -> str: ...
    @property
    def experts(self) -> tuple[str, ...]: ...
    @property
    def site_layers(self) -> tuple[int, ...]: ...
    @property
    def site_modules(self) -> tuple[str, ...] | None: ...
    @property
    def token_ids(self) -> NDArray[Any]: ...
    @property
    def tokens(self) -> tuple[str, ...]: ...
    @property
    def generated(self) -> NDArray[Any]: ...
    @property
    def special(self) -> NDArray[Any]: ...
    @property
    def router_logits(self) -> NDArray[Any]: ...
    @property
    def router_probs(self) -> NDArray[Any]: ...
    @property
    def router_weights(self) -> NDArray[Any]: ...
    @property
    def routing_weights(self) -> NDArray[Any]: ...
    @property
    def overridden(self) -> NDArray[Any]: ...
    @property
    def contributions(self) -> NDArray[Any] | None: ...


class TraceLike(RoutingLike, Protocol):
    """What a token frame needs beside that: how likely the model held each token."""

    @property
    def logprobs(self) -> NDArray[Any]: ...
    @property
    def ranks(self) -> NDArray[Any]: ...
    @property
    def entropies(self) -> NDArray[Any]: ...


_Trace = TypeVar("_Trace", bound=RoutingLike)


def routing_frame(
    traces: RoutingLike | Sequence[RoutingLike], *, special_tokens: bool = True
) -> pd.DataFrame:
    """One row for each position × layer × expert (× module, where every module has a router).

    Args:
        traces: one trace or several; several must be of one bank to be compared.
        special_tokens: False leaves the tokenizer's special tokens out.

    Returns:
        run (str), sequence (int64: place among `traces`), position (int32), phase (category:
        prompt, generated), token_id (int32), token (str), special (bool: one of the tokenizer's
        special tokens), layer (int16), module (category; only with a router for each module),
        expert (category, in the bank's order), logit, prob, router_weight, weight (float32: the
        router's score, its probability, the weight it makes of that alone, what was applied),
        overridden (bool: a plan changed this cell), contribution (float32; only where it was
        recorded).
    """
    frames = [
        _routing_rows(trace, sequence, special_tokens)
        for sequence, trace in enumerate(as_list(traces))
    ]
    if len(frames) == 1:
        return frames[0]
    joined = pd.concat(frames, ignore_index=True)
    for name in ("expert", "module"):  # concat forgets categories that differ between banks
        if name in joined and joined[name].dtype != "category":
            joined[name] = joined[name].astype("category")
    return joined


def token_frame(
    traces: TraceLike | Sequence[TraceLike], *, special_tokens: bool = True
) -> pd.DataFrame:
    """One row for each token.

    Args:
        traces: one trace or several.
        special_tokens: False leaves the tokenizer's special tokens out.

    Returns:
        run, sequence, position, phase, token_id, token as in `routing_frame`; special (bool),
        logprob (float32, nats; NaN for the first), rank (int32; 1: the likeliest token),
        entropy (float32, nats: of the distribution the token was drawn from), routing_entropy
        (float32, nats: entropy of the weights, mean over layers), top_expert (category: largest
        mean weight over the layers), top_weight (float32: that mean), margin (float32: how far it
        is ahead of the second).
    """
    frames = []
    for sequence, trace in enumerate(as_list(traces)):
        mean = trace.routing_weights.mean(axis=1)
        order = np.sort(mean, axis=1)
        second = order[:, -2] if mean.shape[1] > 1 else np.zeros(len(mean), np.float32)
        frame = pd.DataFrame(
            {
                **token_columns(trace, sequence, 1),
                "special": trace.special,
                "logprob": trace.logprobs,
                "rank": trace.ranks,
                "entropy": trace.entropies,
                "routing_entropy": weight_entropy(trace.routing_weights).mean(axis=1),
                "top_expert": categories(mean.argmax(axis=1), trace.experts),
                "top_weight": order[:, -1],
                "margin": order[:, -1] - second,
            }
        )
        frames.append(frame if special_tokens else frame[~trace.special].reset_index(drop=True))
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def weight_entropy(weights: NDArray[Any]) -> NDArray[np.float32]:
    """Entropy in nats over the last axis, of weights scaled to sum to 1; 0 where there are none.

    Negative weights count as none: a share of the routing cannot be negative.
    """
    kept = np.clip(weights, 0, None)
    total = kept.sum(axis=-1, keepdims=True)
    share = np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return -(share * logs).sum(axis=-1)


def _routing_rows(trace: RoutingLike, sequence: int, special_tokens: bool) -> pd.DataFrame:
    positions, sites, experts = trace.routing_weights.shape
    cells = sites * experts
    columns = token_columns(trace, sequence, cells)
    columns["special"] = np.repeat(trace.special, cells)
    columns["layer"] = np.tile(
        np.repeat(np.asarray(trace.site_layers, np.int16), experts), positions
    )
    if trace.site_modules is not None:
        modules = list(dict.fromkeys(trace.site_modules))
        codes = np.array([modules.index(name) for name in trace.site_modules])
        codes = np.tile(np.repeat(codes, experts), positions)
        columns["module"] = categories(codes, modules)
    columns["expert"] = categories(
        np.tile(
            np.arange(experts, dtype=np.int8 if experts < 128 else np.int16), positions * sites
        ),
        trace.experts,
    )
    columns["logit"] = trace.router_logits.ravel()
    columns["prob"] = trace.router_probs.ravel()
    columns["router_weight"] = trace.router_weights.ravel()
    columns["weight"] = trace.routing_weights.ravel()
    columns["overridden"] = trace.overridden.ravel()
    if trace.contributions is not None:
        columns["contribution"] = trace.contributions.ravel()
    frame = pd.DataFrame(columns)
    if special_tokens:
        return frame
    return frame[~frame["special"]].reset_index(drop=True)


def token_columns(trace: RoutingLike, sequence: int, repeat: int) -> dict[str, Any]:
    """The columns that say which token a row is about; `repeat` rows a token."""
    count = len(trace.token_ids)
    texts = pd.array(list(trace.tokens), dtype="str")
    return {
        "run": pd.array([trace.run], dtype="str").repeat(count * repeat),
        "sequence": np.full(count * repeat, sequence),
        "position": np.repeat(np.arange(count, dtype=np.int32), repeat),
        "phase": categories(np.repeat(trace.generated.astype(np.int8), repeat), PHASES),
        "token_id": np.repeat(trace.token_ids, repeat),
        "token": texts.repeat(repeat),
    }


def categories(codes: NDArray[Any], names: Sequence[str]) -> Any:
    """A categorical column of numbers that stand for names."""
    return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(list(names)))  # pyright: ignore[reportCallIssue, reportArgumentType]  (pandas-stubs knows lists only)


def as_list(traces: _Trace | Sequence[_Trace]) -> list[_Trace]:
    """One trace or several as several. Raises ValueError where there is none."""
    found = list(traces) if isinstance(traces, Sequence) else [traces]
    if not found:
        raise ValueError("there is no trace to make a frame of; give at least one")
    return found
