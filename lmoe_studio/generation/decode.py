"""The decoding loop, over token ids: one forward pass a step, a plan and a seed of its own a row."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from transformers import Cache

from lmoe_studio.generation.replay import CudaGraph, Replayable, ReplayedSteps
from lmoe_studio.generation.sampling import Sampler
from lmoe_studio.generation.shared_prompts import PromptReadings, windows
from lmoe_studio.mixture.model import MixtureModel, MixtureOutput
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.tracing.recording import Recording
from lmoe_studio.tracing.records import FloatArray

Finish = Literal["length", "end", "stop string", "stopped"]
"""Why a text ended: as long as asked for, the model's end token, a stop string, or told to stop."""
PlanOf = Callable[[int, Sequence[int]], RoutingPlan | None]
"""Asked before each pass: the plan of a row, given its tokens up to the end of that pass."""


@dataclass
class Row:
    """One sequence of a batch while it is written."""

    prompt: list[int]
    sampler: Sampler
    written: list[int] = field(default_factory=list)
    finish: Finish | None = None
    """Whoever reads the steps may set it: the row then ends."""

    @property
    def ids(self) -> list[int]:
        return self.prompt + self.written


def decode_steps(
    model: MixtureModel,
    rows: Sequence[Row],
    *,
    max_new_tokens: int,
    end_ids: frozenset[int],
    plan_of: PlanOf,
    should_stop: Callable[[], bool],
    turn: AbstractContextManager[object],
    recording: Recording | None,
    past: FloatArray | None = None,
    replayable: Callable[[], Replayable] | None = None,
) -> Iterator[int]:
    """Write tokens into `rows`, one a step, until every row has finished.

    With a recording a token is yielded after the pass that read it, so that its routing is known;
    a finished row idles along, its tokens thrown away.

    Args:
        model: the routed model.
        rows: prompts in, written tokens out; at least one.
        max_new_tokens: the most that a row may write now.
        end_ids: tokens that end a text.
        plan_of: each row's plan.
        should_stop: asked before every pass; True ends all rows.
        turn: entered for each forward pass.
        recording: hears every pass; it knows the past already.
        past: `[position, site, expert]`, where rows go on after a text that all of them share: the
            weights that its tokens, prompt and written ones, were read under, and are again.
        replayable: makes what steps are captured with; None for CUDA graphs on a GPU, and steps
            one by one elsewhere.

    Yields:
        The number of the step, from 0 or from the tokens written before; each row that had not
        finished has one more token.
    """
    batch = _Batch(model, rows, plan_of, turn, recording, replayable)
    if past is None:
        logits = batch.read_prompts(should_stop)
    else:
        logits = batch.read_past(torch.tensor(past), should_stop)
    first = len(rows[0].written)
    for step in range(first, first + max_new_tokens):
        if logits is None or should_stop():
            _finish_all(rows, "stopped")
            return
        tokens = batch.choose(logits)
        for row, token in zip(rows, tokens, strict=True):
            if row.finish is None:
                row.written.append(token)
                if token in end_ids:
                    row.finish = "end"
        if step + 1 == first + max_new_tokens:
            _finish_all(rows, "length")
        if recording is not None:
            logits = batch.read(tokens, step)
        yield step
        if all(row.finish for row in rows):
            return
        if recording is None:
            logits = batch.read(tokens, step)


def _finish_all(rows: Sequence[Row], finish: Finish) -> None:
    for row in rows:
        row.finish = row.finish or finish


class _Batch:
    """The tensors behind the rows: padding, mask, cache."""

    def __init__(
        self,
        model: MixtureModel,
        rows: Sequence[Row],
        plan_of: PlanOf,
        turn: AbstractContextManager[object],
        recording: Recording | None,
        replayable: Callable[[], Replayable] | None,
    ) -> None:
        self._model = model
        self._rows = rows
        self._plan_of = plan_of
        self._turn = turn
        self._recording = recording
        self._device = next(model.parameters()).device
        if replayable is None and self._device.type == "cuda":
            replayable = partial(CudaGraph, self._device)
        self._replayable = replayable
        self._width = max(len(row.prompt) for row in rows)
        self._mask: Tensor | None = None
        self._cache: Cache | None = None
        self._steps: ReplayedSteps | None = None
        self._plans: list[RoutingPlan | None] = [None] * len(rows)

    def read_prompts(self, should_stop: Callable[[], bool]) -> Tensor | None:
        """Logits `[batch, vocab]` for the first new token; None if told to stop."""
        rows = self._rows
        plans = self._plans = [self._plan_of(i, row.prompt) for i, row in enumerate(rows)]
        readings = PromptReadings.of([row.prompt for row in rows], plans)
        padded = [[0] * (self._width - len(prompt)) + prompt for prompt in readings.prompts]
        ids = torch.tensor(padded, device=self._device)
        self._mask = self._padding_mask(readings.prompts)
        logits = None
        for where in windows(self._model, self._width, len(ids)):
            if should_stop():
                return None
            piece, start = ids[:, where], where.start
            logits = self._forward(piece, readings.plans, start, step=-1, of_row=readings.of_row)
        if logits is not None and readings.of_row is not None:
            logits = self._hand_out(logits, readings.of_row)
        if self._replayable is not None and logits is not None:
            self._replay_steps(self._replayable)
        return logits

    @torch.inference_mode()
    def read_past(self, weights: Tensor, should_stop: Callable[[], bool]) -> Tensor | None:
        """The same after a text that all rows share, read once under its weights of then."""
        row = self._rows[0]
        ids = torch.tensor([row.ids], device=self._device)
        steps = torch.arange(-len(row.prompt), len(row.written), device=ids.device).clamp_min(-1)
        logits = None
        for where in windows(self._model, ids.shape[1], rows=1):
            if should_stop():
                return None
            with self._turn:
                output = self._model(
                    ids[:, where],
                    steps=steps[None, where],
                    routing_weights=None if self._model.folded else weights[None, where],
                    past_key_values=self._cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
            self._cache, logits = output.past_key_values, output.logits[:, -1]
        assert logits is not None
        logits = self._hand_out(logits, [0] * len(self._rows))
        if self._recording is not None:
            self._recording.expect(logits)
        if self._replayable is not None:
            self._replay_steps(self._replayable)
        return logits

    @torch.inference_mode()
    def _replay_steps(self, replayable: Callable[[], Replayable]) -> None:
        assert self._cache is not None
        written = len(self._rows[0].written)
        shape = len(self._rows), self._width + written
        padding = torch.zeros(shape, dtype=torch.bool, device=self._device)
        recording = self._recording
        self._steps = ReplayedSteps.over(
            self._model,
            self._cache,
            padding if self._mask is None else self._mask == 0,
            record=recording is not None,
            contributions=recording is not None and recording.contributions,
            replayable=replayable,
            written=written,
        )
        if self._steps is not None:
            self._cache = None  # what it held has moved

    @torch.inference_mode()
    def _hand_out(self, logits: Tensor, of_row: list[int]) -> Tensor:
        """Give each row what its reading left: cache, mask and logits."""
        assert self._cache is not None
        reading = torch.tensor(of_row, device=self._device)
        self._cache.batch_select_indices(reading)
        if self._mask is not None:
            self._mask = self._mask[reading]
        return logits[reading]

    @torch.inference_mode()
    def read(self, tokens: list[int], step: int) -> Tensor:
        """Logits `[batch, vocab]` for the token after these, which are those of `step`."""
        ids = torch.tensor([[token] for token in tokens], device=self._device)
        for i, row in enumerate(self._rows):
            if len(row.written) > step:  # a finished row keeps its plan: the step stays of its kind
                self._plans[i] = self._plan_of(i, row.ids)
        plans = list(self._plans)
        if self._steps is None:
            return self._forward(ids, plans, self._width + step, step=step)
        with self._turn:
            return self._heard(ids, self._steps.read(ids, plans))

    @torch.inference_mode()
    def choose(self, logits: Tensor) -> list[int]:
        return [
            row.sampler.choose(row.ids, logits[i]) if row.finish is None else 0
            for i, row in enumerate(self._rows)
        ]

    @torch.inference_mode()
    def _forward(
        self,
        ids: Tensor,
        plans: list[RoutingPlan | None],
        start: int,
        *,
        step: int,
        of_row: list[int] | None = None,
    ) -> Tensor:
        recording = self._recording
        with self._turn:
            output = self._model(
                ids,
                self._mask_until(start + ids.shape[1]),
                plan=plans,
                steps=torch.full_like(ids, step),
                past_key_values=self._cache,
                use_cache=True,
                record=recording is not None,
                contributions=recording is not None and recording.contributions,
                logits_to_keep=1 if recording is None else 0,
            )
        self._cache = output.past_key_values
        return self._heard(ids, output, of_row)

    def _heard(self, ids: Tensor, output: MixtureOutput, of_row: list[int] | None = None) -> Tensor:
        """The last logits, once the recording knows of the pass."""
        if self._recording is not None:
            self._recording.add(ids, output, of_row)
        return output.logits[:, -1]

    def _padding_mask(self, prompts: list[list[int]]) -> Tensor | None:
        lengths = {len(prompt) for prompt in prompts}
        if len(lengths) == 1:
            return None
        first = self._width - torch.tensor([len(prompt) for prompt in prompts], device=self._device)
        return (torch.arange(self._width, device=self._device) >= first[:, None]).long()

    def _mask_until(self, stop: int) -> Tensor | None:
        """None where nothing is padded: a mask would cost time and change the last digits."""
        if self._mask is None:
            return None
        missing = stop - self._mask.shape[1]
        if missing > 0:
            self._mask = torch.nn.functional.pad(self._mask, (0, missing), value=1)
        return self._mask[:, :stop]
