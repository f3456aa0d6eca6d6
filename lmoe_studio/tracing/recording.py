"""Recording: the trace of a batch while it grows, pass by pass, under the cache."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lmoe_studio.mixture.call import RoutingRecord
from lmoe_studio.mixture.model import MixtureModel, MixtureOutput
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.tracing.recorder import TokenScores, make_trace, score_predictions
from lmoe_studio.tracing.records import FloatArray, RoutingTrace
from lmoe_studio.tracing.token_texts import TokenTexts


class Recording:
    """Keeps what every pass over a left-padded batch says of each token, on the CPU.

    A token's routing comes from the pass that reads it, its scores from the pass before.
    """

    def __init__(
        self,
        alternatives: int,
        *,
        contributions: bool = False,
        past: RoutingTrace | None = None,
        rows: int = 1,
    ) -> None:
        """Begin a recording.

        Args:
            alternatives: how many likely tokens to note for each position.
            contributions: also note how much each expert added.
            past: the trace of a text that all rows go on after; it stays what it is.
            rows: of the batch that goes on after it.
        """
        self.alternatives = alternatives
        self.contributions = contributions
        self._routing: list[RoutingRecord] = []
        self._scores: list[list[TokenScores]] = []  # by row, one entry a pass
        if past is not None:
            self._routing.append(_record_of(past, rows, contributions=contributions))
            scores = TokenScores.of(past, alternatives)
            self._scores = [[scores] for _ in range(rows)]
        self._next: Tensor | None = None  # logits [pass row, vocab] for the token that comes next
        self._of_row: list[int] | None = None  # of the last pass

    def add(self, ids: Tensor, output: MixtureOutput, of_row: list[int] | None = None) -> None:
        """Take in one pass.

        Args:
            ids: `[pass row, seq]`, the tokens it read.
            output: what came of it, with logits of every position and the routing.
            of_row: which row of the pass each row of the batch shares; None for its own.
        """
        assert output.routing is not None
        if self._next is not None and self._of_row is not None and of_row is None:
            self._next = self._next[self._of_row]
        self._of_row = of_row
        shares = list(range(len(ids))) if of_row is None else of_row
        routing = output.routing.each(_own_copy)
        self._routing.append(routing if of_row is None else routing.each(lambda t: t[shares]))
        scores = [self._score_row(row, ids[row], output.logits[row]) for row in range(len(ids))]
        if not self._scores:
            self._scores = [[] for _ in shares]
        for mine, row in zip(self._scores, shares, strict=True):
            mine.append(scores[row])
        self._next = output.logits[:, -1].clone()

    def expect(self, logits: Tensor) -> None:
        """Take in what is foretold after the past: `[batch, vocab]`."""
        self._next = logits

    def _score_row(self, row: int, ids: Tensor, logits: Tensor) -> TokenScores:
        if self._next is None:
            first = TokenScores.unknown(1, self.alternatives)
        else:
            first = self._score(self._next[row, None], ids[:1])
        if len(ids) == 1:
            return first
        return TokenScores.join([first, self._score(logits[:-1], ids[1:])])

    @property
    def length(self) -> int:
        """Places recorded so far, padding included."""
        return sum(one.logits.shape[1] for one in self._routing)

    def last_weights(self, row: int) -> FloatArray:
        """`[site, expert]`: the routing weights of the token that was read last."""
        return self._routing[-1].weights[row, -1].numpy()

    def trace(
        self,
        model: MixtureModel,
        texts: TokenTexts,
        ids: list[int],
        *,
        row: int = 0,
        padding: int = 0,
        prompt_length: int | None = None,
        plan: RoutingPlan | None = None,
        seed: int | None = None,
    ) -> RoutingTrace:
        """The trace of one row so far.

        Args:
            model: the routed model.
            texts: gives the tokens' texts.
            ids: the row's tokens without padding.
            row: which row.
            padding: how many places before its first token are padding.
            prompt_length: how many tokens are the prompt's; None for all.
            plan: what it ran under.
            seed: of the sampling.
        """
        where = slice(padding, padding + len(ids))
        scores = TokenScores.join(self._scores[row]).rows(where)
        unknown = TokenScores.unknown(1, self.alternatives)
        scores = TokenScores.join([unknown, scores.rows(slice(1, None))])
        routing = _row(self._routing, row, where)
        return make_trace(
            model, texts, ids, routing, scores, plan=plan, prompt_length=prompt_length, seed=seed
        )

    def _score(self, logits: Tensor, ids: Tensor) -> TokenScores:
        return score_predictions(logits, ids, self.alternatives)


def _record_of(trace: RoutingTrace, rows: int, *, contributions: bool) -> RoutingRecord:
    def each(values: NDArray[Any]) -> Tensor:
        return torch.tensor(values)[None].expand(rows, *values.shape)

    return RoutingRecord(
        logits=each(trace.router_logits),
        probs=each(trace.router_probs),
        router_weights=each(trace.router_weights),
        weights=each(trace.routing_weights),
        contributions=None
        if trace.contributions is None or not contributions
        else each(trace.contributions),
        notes={name: each(values) for name, values in trace.notes.items()},
    )


def _own_copy(tensor: Tensor) -> Tensor:
    """On the CPU, numbers in float32; the next pass may write over what this one gave."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", dtype, copy=True)


def _row(passes: list[RoutingRecord], row: int, where: slice) -> RoutingRecord:
    def join(parts: list[Tensor]) -> Tensor:
        return torch.cat([part[row : row + 1] for part in parts], dim=1)[:, where]

    return RoutingRecord.join(passes, join)
