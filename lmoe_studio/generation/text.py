"""Strings from tokens: `stream_texts` as they come, `generate_texts` when they are done.

What a call asks for is a `TextRequest`, one a row of the batch; `author.py` makes and checks them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from lmoe_studio.generation.decode import Finish, Row, decode_steps
from lmoe_studio.generation.sampling import Sampler, SamplingOptions
from lmoe_studio.generation.stop_strings import StopStrings
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.routing.settle import PlanRow, needs_text
from lmoe_studio.tracing.recording import Recording
from lmoe_studio.tracing.records import FloatArray, RoutingTrace
from lmoe_studio.tracing.token_texts import TokenStream, TokenTexts


@dataclass(frozen=True)
class TextRequest:
    """One text to be written."""

    prompt: str
    prompt_ids: list[int]
    plan: RoutingPlan | Callable[[], RoutingPlan | None] | None
    sampling: SamplingOptions
    seed: int
    stop_strings: tuple[str, ...] = ()
    written: tuple[int, ...] = ()
    """What the model wrote in calls before this one."""
    plan_before: RoutingPlan | None = None
    """What that ended under."""


@dataclass(frozen=True)
class Generation:
    """A text that was written, and what every router did meanwhile."""

    prompt: str
    text: str
    """What the model wrote, without special tokens and stop string."""
    token_ids: tuple[int, ...]
    """What the model wrote, all of it."""
    finish: Finish
    seed: int
    seconds: float
    """Spent on writing in this call, the wait for others' turns included."""
    trace: RoutingTrace | None
    """Prompt and text; None if not asked for. Its plan is the last one, should it have changed."""
    written_before: int = 0
    """How many of the tokens calls before this one wrote, where it went on after a text."""

    @property
    def new_tokens(self) -> int:
        """How many tokens this call wrote."""
        return len(self.token_ids) - self.written_before

    @property
    def tokens_per_second(self) -> float:
        return self.new_tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Piece:
    """One more token of a text."""

    text: str
    """The text so far."""
    new_text: str
    """What this token adds; empty while a character or a stop string may be incomplete."""
    token_id: int
    """-1 in a last piece that only says why the text ended."""
    step: int
    weights: FloatArray | None
    """`[site, expert]`: routing weights of this token; None without a trace."""
    finish: Finish | None
    """Why the text ended; None until its last piece."""
    generation: Generation | None
    """With the last piece."""
    trace: Callable[[], RoutingTrace | None] = field(repr=False, compare=False)
    """Gives the trace of the prompt and everything so far; takes some milliseconds."""


def stream_texts(
    model: MixtureModel,
    texts: TokenTexts,
    requests: Sequence[TextRequest],
    *,
    max_new_tokens: int,
    end_ids: frozenset[int],
    should_stop: Callable[[], bool],
    turn: AbstractContextManager[object],
    recording: Recording | None,
    past: FloatArray | None = None,
) -> Iterator[list[Piece | None]]:
    """Write texts as the rows of one batch.

    Args:
        model: the routed model.
        texts: gives the tokens' texts.
        requests: one a row.
        max_new_tokens: the most that each row may write.
        end_ids: tokens that end a text.
        should_stop: asked before every pass.
        turn: entered for each forward pass.
        recording: where traces come from; None for none.
        past: see `decode_steps`.

    Yields:
        A piece a row for every step; None for a row that has had its last.
    """
    width = max(len(request.prompt_ids) for request in requests)
    writers = [
        _Writer(model, texts, request, index, width, recording)
        for index, request in enumerate(requests)
    ]
    steps = decode_steps(
        model,
        [writer.row for writer in writers],
        max_new_tokens=max_new_tokens,
        end_ids=end_ids,
        plan_of=lambda row, ids: writers[row].plan_for(ids),
        should_stop=should_stop,
        turn=turn,
        recording=recording,
        past=past,
    )
    seconds = 0.0
    running = True
    while running:
        before = time.perf_counter()
        running = next(steps, None) is not None
        seconds += time.perf_counter() - before
        pieces = [writer.piece(seconds) for writer in writers]
        if any(pieces):
            yield pieces


def generate_texts(pieces: Iterator[list[Piece | None]], count: int) -> list[Generation]:
    """The texts of a batch of `count` rows once they are done."""
    done: list[Generation | None] = [None] * count
    for step in pieces:
        for index, piece in enumerate(step):
            if piece is not None and piece.generation is not None:
                done[index] = piece.generation
    return [one for one in done if one is not None]


class _Writer:
    """One row: its tokens, its text, and its plan for each pass."""

    def __init__(
        self,
        model: MixtureModel,
        texts: TokenTexts,
        request: TextRequest,
        index: int,
        width: int,
        recording: Recording | None,
    ) -> None:
        sampler = Sampler(request.sampling, request.seed, drawn=len(request.written))
        self.row = Row(request.prompt_ids, sampler, list(request.written))
        self._model = model
        self._texts = texts
        self._request = request
        self._index = index
        self._padding = width - len(request.prompt_ids)
        self._recording = recording
        self._special = frozenset(texts.special_ids)
        self._stream = TokenStream(
            texts, [i for i in request.prompt_ids[-1:] if i not in self._special]
        )
        self._shown = StopStrings(request.stop_strings)
        for token in request.written:
            self._take(token)
            if self._shown.found:  # what ended the text then is gone on after now
                self._shown = self._shown.passed()
        self._plan = request.plan_before
        self._reader: _PlanReader | None = None
        self._pieces = len(request.written)
        self._is_over = False

    def plan_for(self, ids: Sequence[int]) -> RoutingPlan | None:
        """The plan for a pass that ends with these tokens."""
        if self._model.folded is not None:
            self._plan = self._model.folded.plan
            return None
        source = self._request.plan
        if source is None or isinstance(source, RoutingPlan):
            self._plan, may_change = source, False
        else:
            self._plan, may_change = source(), True
        if self._reader is None and (may_change or needs_text(self._plan)):
            self._reader = _PlanReader(self._texts, self.row.prompt, self._request.written)
        return self._reader.settle(self._plan, ids) if self._reader else self._plan

    def piece(self, seconds: float) -> Piece | None:
        """What is new since the last piece; None if nothing is."""
        if self._is_over:
            return None
        step = self._pieces
        has_token = step < len(self.row.written)
        if not has_token and self.row.finish is None:
            return None
        token = self.row.written[step] if has_token else -1
        new = self._take(token) if has_token else ""
        if self._shown.found:
            self.row.finish = "stop string"
        self._pieces += 1
        finish = self.row.finish
        if finish:
            self._is_over = True
            new += self._last_text()
        recording = self._recording
        count = len(self.row.ids)
        return Piece(
            text=self._shown.text,
            new_text=new,
            token_id=token,
            step=step,
            weights=recording.last_weights(self._index) if recording and has_token else None,
            finish=finish,
            generation=self._generation(finish, seconds) if finish else None,
            trace=lambda: self._trace(count),
        )

    def _take(self, token: int) -> str:
        if token in self._special:  # not shown, but it may be what is to stop the text
            return self._shown.add_unseen(self._texts.alone(token))
        return self._shown.add(self._stream.add(token))

    def _last_text(self) -> str:
        if self._shown.found:
            return ""
        return self._shown.add(self._stream.held) + self._shown.rest()

    def _generation(self, finish: Finish, seconds: float) -> Generation:
        return Generation(
            prompt=self._request.prompt,
            text=self._shown.text,
            token_ids=tuple(self.row.written),
            finish=finish,
            seed=self._request.seed,
            seconds=seconds,
            trace=self._trace(len(self.row.ids)),
            written_before=len(self._request.written),
        )

    def _trace(self, count: int) -> RoutingTrace | None:
        if self._recording is None or self._recording.length < self._padding + count:
            return None  # not asked for, or stopped before the prompt was read
        return self._recording.trace(
            self._model,
            self._texts,
            self.row.ids[:count],
            row=self._index,
            padding=self._padding,
            prompt_length=len(self.row.prompt),
            plan=self._plan,
            seed=self._request.seed,
        )


class _PlanReader:
    """Tells a `PlanRow` the texts of the tokens as they come."""

    def __init__(self, texts: TokenTexts, prompt: list[int], written: Sequence[int]) -> None:
        self._row = PlanRow(texts.parts(prompt))
        self._stream = TokenStream(texts, prompt[-1:])
        self._prompt_length = len(prompt)
        for token in written:
            self._row.take(self._stream.add(token))

    def settle(self, plan: RoutingPlan | None, ids: Sequence[int]) -> RoutingPlan | None:
        if len(ids) == self._prompt_length:
            return self._row.for_prompt(plan)
        return self._row.for_step(plan, len(ids) - 1, self._stream.add(ids[-1]))
