"""Author: writes texts with a loaded model; what the Studio's verbs about text have in common.

Everything that can be wrong with a call is found here, before the model runs.
"""

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.arguments import one_text, whole_number
from lmoe_studio.errors import ConfigError, ContextLengthError, PlanError, TextError, kind_of
from lmoe_studio.generation.comparison import BASE, Comparison, identical_runs
from lmoe_studio.generation.ends import end_of_turn
from lmoe_studio.generation.options import GenerationOptions
from lmoe_studio.generation.past import Prompt, check_past, past_of, prompt_text, split_past
from lmoe_studio.generation.score import score_continuation
from lmoe_studio.generation.text import (
    Piece,
    TextRequest,
    generate_texts,
    stream_texts,
)
from lmoe_studio.generation.turns import SteadyTurns, Turns
from lmoe_studio.mixture.folded import FOLDED, FoldedBlend
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.check import check_plan
from lmoe_studio.routing.given import PlanLike, PlanSource, as_plan, named_plans
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.tracing.recording import Recording
from lmoe_studio.tracing.records import RoutingTrace
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
        prompt: Prompt,
        given: Sequence[PlanSource],
        should_stop: StopSignal,
        options: Mapping[str, Any],
        *,
        names: Sequence[str] = (),
    ) -> Iterator[list[Piece | None]]:
        """Check everything at once, then give the pieces of a batch: one prompt, a plan a row.

        `names`: what to call the plans where one is refused.
        """
        turns = SteadyTurns(self._turns, lambda: self._model.folded)
        if isinstance(turns.at_first, FoldedBlend):
            turns.at_first.refuse_others()
            if any(given):
                raise PlanError(FOLDED)
        settings = GenerationOptions.parse(options, source="Generation")
        self.check_alternatives(settings.alternatives)
        past = self._open_past(past_of(prompt))
        ids, written = self._read_start(prompt, past, settings)
        new_tokens = len(written) + settings.max_new_tokens
        plans = [
            _asked_each_step(plan)
            if callable(plan)
            else self.checked(plan, length=len(ids) + new_tokens, new_tokens=new_tokens, name=name)
            for plan, name in zip_longest(given, names)
        ]
        request = TextRequest(
            prompt_text(prompt, self._texts),
            ids,
            plan=None,
            sampling=settings,
            seed=_seed(settings, past),
            stop_strings=settings.stop,
            written=tuple(written),
            plan_before=RoutingPlan.from_json(past.plan) if past and past.plan else None,
        )
        recording = None
        if settings.trace:
            recording = Recording(
                settings.alternatives,
                contributions=settings.contributions,
                past=past,
                rows=len(plans),
            )
        pieces = stream_texts(
            self._model,
            self._texts,
            [replace(request, plan=plan) for plan in plans],
            max_new_tokens=settings.max_new_tokens,
            end_ids=self._end_ids,
            should_stop=_asked(should_stop),
            turn=turns,
            recording=recording,
            past=None if past is None else past.routing_weights,
        )
        return self._as_one_call(pieces)

    def compare(
        self,
        prompt: Prompt,
        plans: Mapping[str, PlanLike | None],
        *,
        base: bool,
        reference: str | None,
        should_stop: StopSignal,
        options: Mapping[str, Any],
    ) -> Comparison:
        """Run plans side by side as one batch; see `Studio.compare`."""
        named = named_plans(plans)
        if base and BASE in named:
            raise ConfigError(f"A plan cannot be named '{BASE}': that is the run without experts.")
        if base:
            named = {BASE: RoutingPlan([Override.bypass()]), **named}
        if not 1 <= len(named) <= MAX_RUNS:
            raise ConfigError(
                f"A comparison has 1 to {MAX_RUNS} runs, the base model's included; got {len(named)}."
            )
        pieces = self.write(prompt, list(named.values()), should_stop, options, names=list(named))
        scores = None
        if reference:
            text = one_text(prompt, "With a reference the prompt")
            scores = self._score(text, reference, named, chat=bool(options.get("chat")))
        runs = dict(zip(named, generate_texts(pieces, len(named)), strict=True))
        identical = [(a, b) for a, b in identical_runs(runs) if named[a] != named[b]]
        return Comparison(runs, tuple(identical), scores)

    def checked(
        self,
        given: object,
        *,
        length: int | None = None,
        new_tokens: int | None = None,
        name: str | None = None,
    ) -> RoutingPlan | None:
        """The plan that is meant, unless it does not fit the bank or a run of this extent."""
        plan = as_plan(given)
        try:
            check_plan(
                plan or RoutingPlan(),
                experts=self._model.bank.expert_names,
                num_layers=self._model.num_layers,
                length=length,
                new_tokens=new_tokens,
            )
        except PlanError as error:
            raise PlanError(f"Plan {name}: {error}" if name else str(error)) from None
        return plan

    def check_alternatives(self, count: object) -> int:
        """How many likely tokens are to be noted; there are no more than the vocabulary has."""
        vocabulary = self._model.base.config.get_text_config().vocab_size
        return whole_number(count, "alternatives", least=0, most=vocabulary)

    def _as_one_call(self, pieces: Iterator[list[Piece | None]]) -> Iterator[list[Piece | None]]:
        with self._turns.call():
            yield from pieces

    def _score(
        self, prompt: str, reference: str, plans: Mapping[str, RoutingPlan | None], *, chat: bool
    ) -> dict[str, float]:
        """Log-probability of a reference text after the prompt, under each plan."""
        before = self.read_prompt(prompt, chat=chat)
        after = self._ids.continuing(one_text(reference, "The reference"))
        if len(before) + len(after) > self._context_length:
            raise ContextLengthError(len(before), self._context_length, len(after))
        turns = SteadyTurns(self._turns, lambda: self._model.folded)
        with self._turns.call():
            scores = score_continuation(
                self._model, self._texts, before, after, list(plans.values()), turn=turns
            )
        return dict(zip(plans, scores, strict=True))

    @property
    def _end_ids(self) -> frozenset[int]:
        """Every token that the model or its tokenizer knows to end a text, or a turn of a chat."""
        base, tokenizer = self._model.base, self._tokenizer
        known = [
            getattr(base.generation_config, "eos_token_id", None),
            getattr(base.config.get_text_config(), "eos_token_id", None),
            tokenizer.eos_token_id,
            end_of_turn(tokenizer),
        ]
        listed = [one for ids in known for one in (ids if isinstance(ids, list | tuple) else [ids])]
        return frozenset(int(one) for one in listed if one is not None)

    def _read_start(
        self, prompt: Prompt, past: RoutingTrace | None, options: GenerationOptions
    ) -> tuple[list[int], list[int]]:
        """The tokens of the prompt, and those that were written after it already."""
        if past is None:
            chat, new_tokens = options.chat, options.max_new_tokens
            return self.read_prompt(prompt, chat=chat, new_tokens=new_tokens), []
        check_past(
            past,
            self._model,
            options,
            end_ids=self._end_ids,
            context_length=self._context_length,
        )
        return split_past(past)

    def read_prompt(self, prompt: object, *, chat: bool, new_tokens: int = 0) -> list[int]:
        """The tokens of a prompt. Raises TextError, ContextLengthError."""
        prompt = one_text(prompt, "The prompt")
        if not prompt.strip():
            raise TextError("The prompt is blank; type or paste something to continue.")
        if not chat:
            return self._open(self._ids.whole(prompt, new_tokens=new_tokens))
        if not self._tokenizer.chat_template:
            raise TextError(
                f"{self._model.bank.base.id} has no chat template; continue the prompt as raw text."
            )
        return self._open(self._ids.asked(prompt, new_tokens=new_tokens))

    def _open(self, ids: list[int]) -> list[int]:
        """Without the end mark that some tokenizers put after every text: it is to go on."""
        ends, length = self._end_ids, len(ids)
        while length and ids[length - 1] in ends:
            length -= 1
        return ids[:length] or ids  # a lone mark begins a text, where it is both

    def _open_past(self, past: RoutingTrace | None) -> RoutingTrace | None:
        """A text that was only read, without its end mark; what the model wrote stays whole."""
        if past is None or past.generated.any():
            return past
        length = len(self._open(past.token_ids.tolist()))
        return past if length == len(past) else past.first(length)


def _seed(settings: GenerationOptions, past: RoutingTrace | None) -> int:
    """The seed that is asked for, else the one that the text was written with so far."""
    if settings.seed is not None:
        return settings.seed
    return secrets.randbits(31) if past is None or past.seed is None else past.seed


def _asked_each_step(source: Callable[[], object]) -> Callable[[], RoutingPlan | None]:
    return lambda: as_plan(source(), source="The plan of this step")


def _asked(signal: StopSignal) -> Callable[[], bool]:
    if signal is None:
        return lambda: False
    if isinstance(signal, threading.Event):
        return signal.is_set
    if not callable(signal):
        raise ConfigError(
            f"should_stop is {kind_of(signal)}; expected an Event, or a function that says whether."
        )
    return signal
