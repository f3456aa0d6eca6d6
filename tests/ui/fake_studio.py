"""A studio without a model: traces made by hand from numpy, of any size, with any token texts.

To the type checker they may be anything, as the real classes would bring torch.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmoe_studio.errors import ContextLengthError, TextError
from lmoe_studio.tracing.records import RoutingTrace

Loose: Any = object
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


class FakeStudio(Loose):
    """Splits text into words and spaces; every token gets smooth random weights."""

    def __init__(self, card=None):
        self.card = card or FakeCard()
        self.answer: Any = None  # a trace, or an error, to give whatever the text is

    def trace(self, text, *, max_tokens=None, alternatives=5, contributions=False):
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer
        if not text.strip():
            raise TextError("The text is blank; write something to trace.")
        tokens = re.findall(r" ?\w+| ?[^\w\s]|\n+| +", text)
        if max_tokens is None and len(tokens) > self.card.context_length:
            raise ContextLengthError(len(tokens), self.card.context_length)
        return make_trace(
            ["<|im_start|>", *tokens][:max_tokens],
            layers=self.card.num_layers,
            experts=tuple(expert.name for expert in self.card.experts),
            contributions=contributions,
        )


def make_trace(
    tokens, *, layers=30, experts=NAMES, sharpness=4.0, seed=0, contributions=False
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
        bank="demo",
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
        routing_weights=weights,
        overridden=np.zeros(weights.shape, dtype=bool),
        logprobs=logprobs,
        ranks=ranks,
        entropies=entropies,
        alternative_ids=np.zeros((count, 5), dtype=np.int32),
        alternative_logprobs=best,
        alternative_tokens=tuple(tuple(map(str, row)) for row in chosen),
        contributions=weights * 3 if contributions else None,
    )
