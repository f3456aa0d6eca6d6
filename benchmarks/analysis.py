"""What analysis costs: frames by rows a second, and a corpus against the bare forward passes.

    python -m benchmarks.analysis [--bank demo] [--json out.json]

The forward passes that a corpus is held against are those of the same batches with nothing recorded
or written, all logits computed, as a plain loop over batches would. Medians of interleaved rounds.
"""

import argparse
import json
import platform
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis import (
    coactivation,
    expert_tokens,
    expert_usage,
    label_owners,
    layer_transitions,
    routing_frame,
    specialisation,
)
from benchmarks.speed.measure import Case, Effort, Spread, interleave, ratios
from lmoe_studio.studio import Studio
from lmoe_studio.tracing.corpus import CorpusOptions, CorpusTracer
from lmoe_studio.tracing.corpus_files import CorpusTexts
from lmoe_studio.tracing.records import RoutingTrace


def made_up_trace(tokens: int, layers: int, experts: int) -> RoutingTrace:
    """A trace of random weights, of any size."""
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(experts), (tokens, layers)).astype(np.float32)
    floats, ints = np.zeros(tokens, np.float32), np.zeros(tokens, np.int32)
    return RoutingTrace(
        run="run", bank="made-up", base="made-up", experts=tuple(f"e{i}" for i in range(experts)),
        site_layers=tuple(range(layers)), site_modules=None, token_ids=ints,
        tokens=tuple(f" word{i % 97}" for i in range(tokens)), generated=floats > 0,
        special=floats > 0, router_logits=weights, router_probs=weights, router_weights=weights,
        routing_weights=weights, overridden=weights > 2, logprobs=floats, ranks=ints,
        entropies=floats,
        alternative_ids=ints[:, None], alternative_logprobs=floats[:, None],
        alternative_tokens=tuple(("",) for _ in range(tokens)), contributions=weights,
    )  # fmt: skip


def seconds(run: Callable[[], object], rounds: int = 15) -> float:
    """Median of some rounds."""
    times = interleave({"it": Case(lambda _: run())}, Effort(rounds, seconds=60))
    return Spread.of(times["it"]).median


def frames() -> dict[str, float]:
    """One frame of 512 tokens × 30 layers × 8 experts, a corpus of them, and the questions."""
    one = made_up_trace(512, 30, 8)
    rows = 512 * 30 * 8
    single = seconds(lambda: routing_frame(one))
    many = seconds(lambda: routing_frame([one] * 8), rounds=5)
    results = {
        "frame of 512 × 30 × 8, ms": single * 1e3,
        "rows a second, one frame": rows / single,
        "rows a second, eight frames": 8 * rows / many,
    }
    frame = routing_frame([one] * 8)
    frame["label"] = np.where(frame["sequence"] % 2, "a", "b")
    questions: dict[str, Callable[[Any], Any]] = {
        "expert_usage": expert_usage,
        "coactivation": coactivation,
        "expert_tokens": expert_tokens,
        "layer_transitions": layer_transitions,
        "specialisation": specialisation,
        "label_owners": label_owners,
    }
    for name, ask in questions.items():
        cost = seconds(lambda ask=ask: ask(frame), rounds=3)
        results[f"{name} of {len(frame):,} rows, ms"] = cost * 1e3
    return results


def corpus(bank: str, texts: int, rounds: int) -> dict[str, float]:
    """Tokens a second of a whole corpus run, and of the bare forward passes of its batches."""
    studio = Studio.load(bank, device="cpu")
    words = [
        "SELECT",
        "the",
        "name",
        "de",
        "la",
        "maison",
        "def",
        "return",
        "of",
        "12",
        "+",
        "7",
        "flour",
        "sugar",
        "thou",
        "art",
    ]
    generator = random.Random(0)
    written = [
        " ".join(generator.choices(words, k=generator.randint(20, 160))) for _ in range(texts)
    ]
    tracer = CorpusTracer(
        studio.model,
        studio._texts,
        studio._encode_cut,
        studio.context_length,
        studio._one_at_a_time,
    )
    rows = [row for part in tracer._parts(CorpusTexts(written), CorpusOptions()) for row in part]
    tokens = sum(len(row.ids) for row in rows)
    batches = []
    for batch in tracer._batches(rows):
        ids = torch.zeros(len(batch), len(batch[0].ids), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(batch):
            ids[index, : len(row.ids)], mask[index, : len(row.ids)] = torch.tensor(row.ids), 1
        batches.append((ids, mask))

    @torch.inference_mode()
    def forward(**options: Any) -> None:
        for ids, mask in batches:
            studio.model(ids, mask, **options)

    def trace() -> None:
        with tempfile.TemporaryDirectory() as folder:
            studio.trace_corpus(written, out=Path(folder) / "runs")

    cases = {
        "corpus run": Case(lambda _: trace()),
        "forward": Case(lambda _: forward()),
        "forward without logits": Case(lambda _: forward(logits_to_keep=1)),
    }
    times = interleave(cases, Effort(rounds, seconds=600))
    own = times["corpus run"]
    medians = {name: Spread.of(values).median for name, values in times.items()}
    return {
        "tokens": tokens,
        **{f"tokens a second, {name}": tokens / median for name, median in medians.items()},
        "throughput of a corpus run over forward": ratios(times["forward"], own).median,
        "the same over forward without logits": ratios(times["forward without logits"], own).median,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bank", default="demo")
    parser.add_argument("--texts", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = frames() | corpus(options.bank, options.texts, options.rounds)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads")
    for name, value in results.items():
        print(f"{name:50} {value:14,.2f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
