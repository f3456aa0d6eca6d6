"""Decoding steps that can be replayed: every tensor of a step stays where it is.

A GPU then gets the whole step, routers, plan and experts included, as one CUDA graph instead of
hundreds of kernels that Python launches one by one, which is what decoding waits for otherwise.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, Self, TypeVar, cast

import torch
from torch import Tensor
from transformers import Cache, PreTrainedConfig, StaticCache
from transformers.cache_utils import DynamicLayer, StaticLayer

from lmoe_studio.mixture.model import MixtureModel, MixtureOutput
from lmoe_studio.mixture.past import recall
from lmoe_studio.quantisation import quantised_linears
from lmoe_studio.routing.apply import CompiledPlan
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.routing.router import TokenBatch

_log = logging.getLogger(__name__)
_ROOM = 256  # places for new tokens to start with; doubled when they are full
_ATTENTION = ("sdpa", "eager")  # that add a mask of our own to their scores
_CAPTURED_BY = 2  # the step of one kind that is captured: the one before has warmed everything up

T = TypeVar("T")


class Replayable(Protocol):
    """Something that runs once, and then again on whatever its tensors hold by then."""

    def capture(self, run: Callable[[], T]) -> T:
        """Note what `run` does without the host; gives tensors that `replay` fills."""
        ...

    def replay(self) -> None:
        """Do it."""
        ...


class CudaGraph:
    """A Replayable on a GPU."""

    _one_at_a_time = threading.Lock()
    """A process captures one graph at a time, whatever the models."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, run: Callable[[], T]) -> T:
        with self._one_at_a_time, torch.cuda.device(self._device):
            before, stream = torch.cuda.current_stream(), torch.cuda.Stream()
            try:
                with torch.cuda.stream(stream):
                    torch.cuda.current_blas_handle()  # a new thread's cannot be made in a capture
                # Other threads may go on allocating meanwhile.
                with torch.cuda.graph(
                    self._graph, stream=stream, capture_error_mode="thread_local"
                ):
                    return run()
            finally:
                torch.cuda.set_stream(before)  # a capture that fails would stay on its own

    def replay(self) -> None:
        with torch.cuda.device(self._device):
            self._graph.replay()


class StaticMemory:
    """Keys, values and mask of a batch, in place; a cache that has grown moves in."""

    def __init__(self, config: PreTrainedConfig, cache: Cache, padding: Tensor, room: int) -> None:
        """Take over what a cache holds.

        Args:
            config: of the base model.
            cache: of the tokens so far.
            padding: `[batch, seq]`, True where those are padding.
            room: how many further tokens to make room for.
        """
        self.length = padding.shape[1]
        self.room = self.length + room
        self.cache = StaticCache(config, max_cache_len=self.room)
        for old, new in zip(cache.layers, self.cache.layers, strict=True):
            _move(cast(DynamicLayer, old), cast(StaticLayer, new), self.length)
        keys = cast(Tensor, cast(StaticLayer, self.cache.layers[0]).keys)
        shape = len(padding), 1, 1, self.room
        self.mask = torch.full(shape, torch.finfo(keys.dtype).min, dtype=keys.dtype).to(keys.device)
        self.mask[:, 0, 0, : self.length].masked_fill_(~padding, 0)

    def add_place(self) -> None:
        """Let attention see the place that the next token goes to."""
        self.mask[..., self.length] = 0
        self.length += 1

    def enlarged(self, config: PreTrainedConfig) -> "StaticMemory":
        """The same with twice the places."""
        padding = self.mask[:, 0, 0, : self.length] != 0
        return StaticMemory(config, self.cache, padding, self.room)


class ReplayedSteps:
    """Reads a token of each row a step, after what was there has been read.

    The first step of a kind runs as it is, the second is captured, the others are replayed. Plans
    are of one kind as long as they do the same things, whatever their numbers, tokens and rows;
    whether a strength of 0 or 1 counts as a number, which costs two small operations, is decided
    by whether one ever changes.
    """

    def __init__(
        self,
        model: MixtureModel,
        cache: Cache,
        padding: Tensor,
        *,
        record: bool,
        contributions: bool,
        replayable: Callable[[], Replayable],
        written: int = 0,
    ) -> None:
        """Take over a batch.

        Args:
            model: the routed model.
            cache: of the tokens so far.
            padding: `[batch, seq]`, True where those are padding.
            record: give the routing with each step.
            contributions: with `record`, also how much each expert added.
            replayable: makes what steps are captured with.
            written: how many of the tokens so far the model wrote.
        """
        self._model = model
        self._record, self._contributions = record, contributions
        self._memory = StaticMemory(model.base.config, cache, padding, _ROOM)
        rows, device = len(padding), padding.device
        self._tokens, _ = model.typed(
            TokenBatch(
                ids=torch.zeros(rows, 1, dtype=torch.long, device=device),
                positions=(~padding).sum(dim=1, keepdim=True) - 1,
                is_token=torch.ones(rows, 1, dtype=torch.bool, device=device),
                steps=torch.full((rows, 1), written - 1, device=device),
            ),
            {},
        )
        self._plans: list[RoutingPlan | None] | None = None
        self._plan: CompiledPlan | None = None
        self._plans_vary = False
        self._make = replayable
        self._seen = 0  # steps of the present kind
        self._captured: tuple[Replayable, MixtureOutput] | None = None

    @classmethod
    def over(
        cls, model: MixtureModel, cache: Cache, padding: Tensor, **choices: Any
    ) -> Self | None:
        """The steps of a batch whose first tokens were read; None if they cannot be replayed."""
        config = model.base.config
        if not all(type(one) is DynamicLayer for one in cache.layers) or recall(cache):
            return None
        static = StaticCache(config, max_cache_len=1)
        whole = all(type(one) is StaticLayer for one in static.layers)
        on_one = len({parameter.device for parameter in model.parameters()}) == 1
        # What an 8-bit layer does depends on what it reads, and 4-bit ones were never captured yet.
        is_full = not quantised_linears(model.base)
        if not (whole and on_one and is_full and config._attn_implementation in _ATTENTION):
            return None
        return cls(model, cache, padding, **choices)

    def read(self, ids: Tensor, plans: Sequence[RoutingPlan | None]) -> MixtureOutput:
        """Read one token a row.

        What is given back may be overwritten by the next step.

        Args:
            ids: `[batch, 1]`.
            plans: one a row.
        """
        if self._memory.length == self._memory.room:
            self._memory = self._memory.enlarged(self._model.base.config)
            self._start_over()
        self._memory.add_place()
        self._tokens.ids.copy_(ids)
        self._tokens.positions.add_(1)
        self._tokens.steps.add_(1)
        self._take_types()
        self._take_plans(list(plans))
        self._seen += 1
        if self._captured is None and self._seen >= _CAPTURED_BY:
            self._capture()
        if self._captured is None:
            return self._run()
        graph, output = self._captured
        graph.replay()
        return output

    def _take_types(self) -> None:
        types = self._tokens.types
        if types is not None:
            new, _ = self._model.typed(replace(self._tokens, types=None), {})
            types.copy_(cast(Tensor, new.types))

    def _run(self) -> MixtureOutput:
        return self._model.run_pass(
            self._tokens,
            self._memory.mask,
            plan=self._plan,
            past_key_values=self._memory.cache,
            use_cache=True,
            record=self._record,
            contributions=self._contributions,
        )

    def _capture(self) -> None:
        graph = self._make()
        try:
            self._captured = graph, graph.capture(self._run)
        except RuntimeError as error:  # a base model that asks its tensors questions
            _log.warning("Decoding goes on without a CUDA graph: %s", str(error).splitlines()[0])
            self._seen = -(10**9)  # never again in this batch

    def _take_plans(self, plans: list[RoutingPlan | None]) -> None:
        """Put the plans' numbers where the step looks for them."""
        if plans == self._plans and all(_is_lasting(plan) for plan in plans):
            return
        first, self._plans = self._plans is None, plans
        new = self._compiled(plans)
        if _shape(new) != _shape(self._plan) and not (first or self._plans_vary):
            # A strength may have come to 0 or 1, or left it: from now on that is a number too.
            self._plans_vary = True
            new = self._compiled(plans)
        if new is not None and self._plan is not None and new.shape == self._plan.shape:
            self._plan.take_numbers(new)
        elif new is not None or self._plan is not None:
            self._plan = new
            self._start_over()

    def _compiled(self, plans: list[RoutingPlan | None]) -> CompiledPlan | None:
        return self._model.compile_plan(plans, self._tokens, roomy=self._plans_vary)

    def _start_over(self) -> None:
        self._captured = None
        self._seen = min(self._seen, 0)


def _shape(plan: CompiledPlan | None) -> object:
    return None if plan is None else plan.shape


def _is_lasting(plan: RoutingPlan | None) -> bool:
    """Whether a settled plan does the same to every new token."""
    lasting = ("all", "prompt", "generated")
    return plan is None or all(one.tokens in lasting for one in plan.overrides)


def _move(old: DynamicLayer | StaticLayer, new: StaticLayer, length: int) -> None:
    keys, values = cast(Tensor, old.keys)[:, :, :length], cast(Tensor, old.values)[:, :, :length]
    new.lazy_initialization(keys, values)
    cast(Tensor, new.keys)[:, :, :length] = keys
    cast(Tensor, new.values)[:, :, :length] = values
    new.cumulative_length.fill_(length)
