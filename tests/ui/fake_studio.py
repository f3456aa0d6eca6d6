"""A studio without a model: traces made by hand from numpy, of any size, with any token texts.

To the type checker they may be anything, as the real classes would bring torch.
"""

import math
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lmoe_studio.errors import ContextLengthError, PlanError, TextError
from lmoe_studio.routing.check import check_plan, plan_notes
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.tracing.records import RoutingTrace

Loose: Any = object
ROUTER = RouterSettings().model_dump_json()
NAMES = ("sql", "french", "cooking", "python", "drama", "math", "dialogue", "prose")


@dataclass(frozen=True)
class FakeExpert:
    name: str
    description: str = "What it was trained on."
    tags: tuple[str, ...] = ("demo",)
    rank: int = 8


@dataclass(frozen=True)
class FakeCard(Loose):
    bank: str = "demo"
    base: str = "SmolLM2-135M-Instruct"
    composition: str = "output"
    router: str = "linear, per layer, softmax"
    experts: tuple[FakeExpert, ...] = tuple(FakeExpert(name) for name in NAMES)
    num_layers: int = 30
    context_length: int = 600
    device: str = "cpu"
    dtype: str = "float32"
    base_parameters: int = 134_515_008
    bank_parameters: int = 4_884_480
    quantize: str | None = None


class FakeStudio(Loose):
    """Splits text into words and spaces; every token gets smooth random weights."""

    def __init__(self, card=None):
        self.card = card or FakeCard()
        self.answer: Any = None  # a trace, or an error, to give whatever the text is
        self.pause = 0.0  # seconds that a generated token takes
        self.plans = []  # of all runs, in order
        self.router = RouterSettings()
        self.steps = 0  # generated tokens of all runs
        self.going = set()  # runs that have begun and not ended
        self._most_words = self._most_read = math.inf

    @contextmanager
    def held(self, words=3, *, read=math.inf):
        """Meanwhile runs write so many words, or read so many tokens, and wait until they are stopped or this ends."""
        self._most_words, self._most_read = words, read
        try:
            yield
        finally:
            self._most_words = self._most_read = math.inf

    def _wait_for_turn(self, words, stop):
        time.sleep(self.pause)
        while words >= self._most_words and not (stop is not None and stop.is_set()):
            time.sleep(0.01)

    def trace(
        self,
        text,
        *,
        max_tokens=None,
        alternatives=5,
        contributions=False,
        on_progress=lambda *_: None,
        should_stop=lambda: False,
    ):
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer
        if not text.strip():
            raise TextError("The text is blank; write something to trace.")
        tokens = re.findall(r" ?\w+| ?[^\w\s]|\n+| +", text)
        if max_tokens is None and len(tokens) > self.card.context_length:
            raise ContextLengthError(len(tokens), self.card.context_length)
        tokens = ["<|im_start|>", *tokens][:max_tokens]
        read = 0
        while read < len(tokens) and not (read and should_stop()):
            time.sleep(self.pause)
            read = min(read + 100, len(tokens))
            on_progress(read, len(tokens))
            while read >= self._most_read and not should_stop():
                time.sleep(0.01)
        return make_trace(
            tokens[:read],
            bank=self.card.bank,
            layers=self.card.num_layers,
            experts=tuple(expert.name for expert in self.card.experts),
            contributions=contributions,
        )

    def preview(self, trace, plan):
        """By the real rules: they need no model."""
        from lmoe_studio.tracing.preview import preview_weights, refuse_foreign

        names = tuple(expert.name for expert in self.card.experts)
        sites = [SimpleNamespace(layer=layer, module=None) for layer in range(self.card.num_layers)]
        bank = SimpleNamespace(
            name=self.card.bank, base=SimpleNamespace(id=self.card.base), expert_names=names,
            router=self.router,
        )  # fmt: skip
        refuse_foreign(trace, SimpleNamespace(bank=bank, sites=sites))
        texts = SimpleNamespace(parts=lambda ids, after=(): [trace.tokens[i] for i in ids])
        return preview_weights(trace, plan, router=bank.router, num_layers=len(sites), texts=texts)

    def check_plan(self, plan, *, max_new_tokens=None):
        check_plan(
            plan,
            experts=tuple(expert.name for expert in self.card.experts),
            num_layers=self.card.num_layers,
            new_tokens=max_new_tokens,
        )
        experts = tuple(expert.name for expert in self.card.experts)
        return tuple(plan_notes(plan, experts=experts, new_tokens=max_new_tokens))

    def stream(self, prompt, *, plan=None, max_new_tokens=64, should_stop=None, seed=0, **options):
        """One word a token; a plan that asks for something changes the words from the third on, or, where it
        names math, from the fifth."""
        if isinstance(self.answer, Exception):
            raise self.answer
        self.plans.append(plan)
        past = prompt if isinstance(prompt, RoutingTrace) else self.trace(prompt)
        return self._pieces(past, plan, max_new_tokens, should_stop, seed)

    def _pieces(self, *how):
        run = object()
        self.going.add(run)
        try:
            yield from self._words(*how)
        finally:
            self.going.remove(run)

    def _words(self, past, plan, count, should_stop, seed):
        before = int(past.generated.sum())
        steps = range(before, before + count)
        others_from = 5 if plan and "math" in plan.overrides[0].weights else 3
        words = [f" {'other' if plan and step >= others_from else 'word'}{step}" for step in steps]
        started = time.perf_counter()
        written = []
        for step, word in zip(steps, words, strict=True):
            self._wait_for_turn(len(written), should_stop)
            stopped = should_stop is not None and should_stop.is_set()
            if not stopped:
                written.append(word)
                self.steps += 1
            tokens = [*past.tokens, *written]
            last = stopped or step == steps[-1]
            seconds = time.perf_counter() - started
            made = SimpleNamespace(
                text="".join(written),
                prompt="".join(past.tokens),
                token_ids=tuple(range(before + len(written))),
                new_tokens=len(written),
                trace=self._written(past, tokens, plan),
                finish="stopped" if stopped else "length",
                seed=seed,
                seconds=seconds,
                tokens_per_second=len(written) / seconds,
            )
            yield SimpleNamespace(
                step=step,
                text=made.text,
                finish=made.finish if last else None,
                generation=made if last else None,
                trace=lambda made=made: made.trace,
            )
            if last:
                return

    def _written(self, past, tokens, plan):
        trace = make_trace(tokens, bank=past.bank, layers=past.num_layers, experts=past.experts)
        generated = np.arange(len(tokens)) >= len(past) - past.generated.sum()
        weights, overridden = trace.routing_weights, trace.overridden
        for one in plan.overrides if plan else ():
            if one.operation == "solo":
                names = trace.experts
                sole = np.eye(len(names), dtype=np.float32)[names.index(next(iter(one.weights)))]
                weights = np.broadcast_to(sole, weights.shape).copy()
                overridden = np.ones_like(overridden)
        return replace(
            trace,
            generated=generated,
            routing_weights=weights,
            overridden=overridden,
            plan=plan.to_json() if plan else None,
        )

    def generate(self, prompt, **options):
        *_, last = self.stream(prompt, **options)
        return last.generation

    def compare(self, prompt, plans, *, reference=None, base=True, **options):
        wanted = ({"base": RoutingPlan([Override.bypass()])} if base else {}) | plans
        runs = {name: self.generate(prompt, plan=plan, **options) for name, plan in wanted.items()}
        return FakeComparison(
            runs, {name: -1.5 - place for place, name in enumerate(runs)} if reference else None
        )

    def sweep(self, prompt, expert, *, strengths=(0, 0.5, 1), plan=None, **options):
        plans = {
            f"{expert} {strength:g}": RoutingPlan([Override.solo(expert, strength=strength)])
            for strength in strengths
        }
        return self.compare(prompt, plans, **options)

    def merge(self, plan, out, *, rank=None, full=False):
        if any(one.tokens != "all" for one in plan.overrides):
            raise PlanError("Override 1 (solo) holds for some tokens only; an adapter cannot.")
        Path(out).mkdir(parents=True)
        (Path(out) / "adapter_config.json").write_text("{}")
        return SimpleNamespace(folder=out, rank=8, errors={}, max_difference=1.2e-6)


@dataclass(frozen=True)
class FakeComparison(Loose):
    runs: dict
    reference_logprobs: dict | None

    @property
    def identical(self):
        names = list(self.runs)
        return tuple(
            (a, b)
            for place, a in enumerate(names)
            for b in names[place + 1 :]
            if self.runs[a].text == self.runs[b].text
        )

    def divergence(self, a, b):
        words = [self.runs[name].text.split(" ") for name in (a, b)]
        pairs = zip(*words, strict=True)
        return next((step - 1 for step, (x, y) in enumerate(pairs) if x != y), None)


def make_trace(
    tokens,
    *,
    bank="demo",
    layers=30,
    experts=NAMES,
    sharpness=4.0,
    seed=0,
    contributions=False,
) -> Any:
    random = np.random.default_rng(seed)
    count, many = len(tokens), len(experts)
    # Neighbouring tokens and layers are alike, as in a real trace.
    steps = random.normal(size=(count, 1, many)) + 0.5 * random.normal(size=(count, layers, many))
    smooth = np.cumsum(steps, axis=0) * 0.5 + np.cumsum(steps, axis=1) * 0.15
    smooth -= smooth.mean(axis=0) if count else 0
    depth = np.linspace(0.3, 1, layers)[:, None]
    logits = (smooth / (smooth.std() + 1e-9 if count else 1) * sharpness * 0.5 * depth).astype(
        np.float32
    )
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    logprobs = -random.exponential(2, size=count).astype(np.float32)
    best = np.sort(-random.exponential(2, size=(count, 5)).astype(np.float32))[:, ::-1].copy()
    ranks = random.integers(1, 50, size=count).astype(np.int32)
    entropies = random.exponential(2, size=count).astype(np.float32)
    logprobs[:1] = entropies[:1] = best[:1] = np.nan
    ranks[:1] = 0
    vocabulary = np.array([" the", " a", "\n", " of", " users", "ing", " =", " 7", "é", " pan"])
    chosen = vocabulary[random.integers(0, len(vocabulary), size=(count, 5))]
    return RoutingTrace(
        run="run-1",
        bank=bank,
        base="SmolLM2-135M-Instruct",
        experts=tuple(experts),
        site_layers=tuple(range(layers)),
        site_modules=None,
        token_ids=np.arange(count, dtype=np.int32),
        tokens=tuple(tokens),
        generated=np.zeros(count, dtype=bool),
        special=np.array([token.startswith("<|") for token in tokens], dtype=bool),
        router_logits=logits,
        router_probs=weights,
        router_weights=weights,
        routing_weights=weights,
        overridden=np.zeros(weights.shape, dtype=bool),
        logprobs=logprobs,
        ranks=ranks,
        entropies=entropies,
        alternative_ids=np.zeros((count, 5), dtype=np.int32),
        alternative_logprobs=best,
        alternative_tokens=tuple(tuple(map(str, row)) for row in chosen),
        contributions=weights * 3 if contributions else None,
        router=ROUTER,
    )
