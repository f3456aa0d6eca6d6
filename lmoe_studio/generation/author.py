"""Author: writes texts with a loaded model; what the Studio's verbs about text have in common.

Everything that can be wrong with a call is found here, before the model runs.
"""

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.errors import ConfigError, ContextLengthError, PlanError, TextError
from lmoe_studio.generation.comparison import BASE, Comparison, identical_runs
from lmoe_studio.generation.options import GenerationOptions
from lmoe_studio.generation.score import score_continuation
from lmoe_studio.generation.text import (
    Piece,
    PlanSource,
    TextRequest,
    generate_texts,
    stream_texts,
)
from lmoe_studio.generation.turns import SteadyTurns, Turns
from lmoe_studio.mixture import FOLDED, MixtureModel
from lmoe_studio.routing.check import check_plan
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.tracing.recording import Recording
from lmoe_studio.tracing.token_ids import TokenIds
from lmoe_studio.tracing.token_texts import TokenTexts

StopSignal = threading.Event | Callable[[], bool] | None
"""Set, or returning True, once the writing is to end."""
MAX_RUNS = 16
"""Rows of one comparison."""


class Author:
    """Writes texts with one model, in turn with everyone else who uses it."""

    def __init__(
        self,
        model: MixtureModel,
        tokenizer: PreTrainedTokenizerBase,
        texts: TokenTexts,
        ids: TokenIds,
        *,
        context_length: int,
        turns: Turns,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._texts = texts
        self._context_length = context_length
        self._ids = ids
        self._turns = turns

    def write(
        self,
        prompt: str,
        plans: Sequence[PlanSource],
        should_stop: StopSignal,
        options: Mapping[str, Any],
    ) -> Iterator[list[Piece | None]]:
        """Check everything at once, then give the pieces of a batch: one prompt, a plan a row."""
        if self._model.folded is not None and any(plans):
            raise PlanError(FOLDED)
        settings = GenerationOptions.parse(options, source="Generation")
        ids = self._read_prompt(prompt, chat=settings.chat, new_tokens=settings.max_new_tokens)
        length = len(ids) + settings.max_new_tokens
        for plan in plans:
            if isinstance(plan, RoutingPlan):
                self.check(plan, length=length, new_tokens=settings.max_new_tokens)
        seed = secrets.randbits(31) if settings.seed is None else settings.seed
        recording = None
        if settings.trace:
            recording = Recording(settings.alternatives, contributions=settings.contributions)
        pieces = stream_texts(
            self._model,
            self._texts,
            [TextRequest(prompt, ids, plan, settings, seed, settings.stop) for plan in plans],
            max_new_tokens=settings.max_new_tokens,
            end_ids=self._end_ids,
            should_stop=_asked(should_stop),
            turn=SteadyTurns(self._turns, lambda: self._model.folded),
            recording=recording,
        )
        return self._as_one_call(pieces)

    def compare(
        self,
        prompt: str,
        plans: Mapping[str, RoutingPlan | None],
        *,
        base: bool,
        reference: str | None,
        should_stop: StopSignal,
        options: Mapping[str, Any],
    ) -> Comparison:
        """Run plans side by side as one batch; see `Studio.compare`."""
        if base and BASE in plans:
            raise ConfigError(f"A plan cannot be named '{BASE}': that is the run without experts.")
        named = {BASE: RoutingPlan([Override.bypass()]), **plans} if base else dict(plans)
        if not 1 <= len(named) <= MAX_RUNS:
            raise ConfigError(
                f"A comparison has 1 to {MAX_RUNS} runs, the base model's included; got {len(named)}."
            )
        pieces = self.write(prompt, list(named.values()), should_stop, options)
        scores = None
        if reference:
            scores = self._score(prompt, reference, named, chat=bool(options.get("chat")))
        runs = dict(zip(named, generate_texts(pieces, len(named)), strict=True))
        identical = [(a, b) for a, b in identical_runs(runs) if named[a] != named[b]]
        return Comparison(runs, tuple(identical), scores)

    def check(
        self, plan: RoutingPlan, *, length: int | None = None, new_tokens: int | None = None
    ) -> None:
        """Refuse a plan that does not fit the bank or a run of this extent."""
        check_plan(
            plan,
            experts=self._model.bank.expert_names,
            num_layers=self._model.num_layers,
            length=length,
            new_tokens=new_tokens,
        )

    def _as_one_call(self, pieces: Iterator[list[Piece | None]]) -> Iterator[list[Piece | None]]:
        with self._turns.call():
            yield from pieces

    def _score(
        self, prompt: str, reference: str, plans: Mapping[str, RoutingPlan | None], *, chat: bool
    ) -> dict[str, float]:
        """Log-probability of a reference text after the prompt, under each plan."""
        before = self._read_prompt(prompt, chat=chat)
        after = self._ids.continuing(reference)
        if len(before) + len(after) > self._context_length:
            raise ContextLengthError(len(before), self._context_length, len(after))
        scores = score_continuation(
            self._model, self._texts, before, after, list(plans.values()), turn=self._turns
        )
        return dict(zip(plans, scores, strict=True))

    @property
    def _end_ids(self) -> frozenset[int]:
        """Tokens that end a text: those that `model.generate` stops at."""
        found = getattr(self._model.base.generation_config, "eos_token_id", None)
        if found is None:
            found = self._tokenizer.eos_token_id
        listed = found if isinstance(found, list) else [found]
        return frozenset(int(one) for one in listed if one is not None)

    def _read_prompt(self, prompt: str, *, chat: bool, new_tokens: int = 0) -> list[int]:
        if not prompt.strip():
            raise TextError("The prompt is blank; type or paste something to continue.")
        if not chat:
            return self._ids.whole(prompt, new_tokens=new_tokens)
        if not self._tokenizer.chat_template:
            raise TextError(
                f"{self._model.bank.base.id} has no chat template; continue the prompt as raw text."
            )
        return self._ids.asked(prompt, new_tokens=new_tokens)


def _asked(signal: StopSignal) -> Callable[[], bool]:
    if signal is None:
        return lambda: False
    return signal.is_set if isinstance(signal, threading.Event) else signal
