"""The rows of the tables: what is measured, and the cases of each. Nothing runs here yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.bases import SHAPES, WORD
from benchmarks.speed.cases import (
    BATCH,
    PROMPT,
    SEQUENCE,
    UNCACHED_TOKENS,
    WRITTEN,
    Forward,
    Unrouted,
    decoding,
    joint_training,
    reading,
    replaying,
    rereading,
    training,
    training_batch,
)
from benchmarks.speed.measure import Case
from benchmarks.speed.variants import Variants
from lmoe_studio.config import Composition
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan, Span
from lmoe_studio.studio import Studio
from lmoe_studio.tracing.prompt import record_prompt
from lmoe_studio.tracing.token_texts import TokenTexts

COUNTS = (1, 2, 4, 8, 16, 32, 64)
RANKS = (4, 8, 16, 32, 64)
BASE = "base model"
OURS = "L-MoE"
FOLDED = f"{OURS} blend, folded"
PLAN = RoutingPlan([Override.solo("e3", layers=Span(start=1), strength=0.5), Override.ban("e1")])
LATER_PLAN = RoutingPlan(
    [
        Override.solo("e3", layers=Span(start=1), tokens="generated", strength=0.5),
        Override.ban("e1"),
    ]
)


@dataclass(frozen=True)
class Entry:
    """A case to be built, and the one that its ratio is to."""

    build: Callable[[], Case]
    against: str


Entries = Mapping[str, Entry]


@dataclass(frozen=True)
class Row:
    """One comparison."""

    key: str
    """A group, or `group/which`."""
    title: str
    entries: Callable[[Variants], Entries]
    weighed: bool = False
    """Memory is measured, not time."""

    @property
    def group(self) -> str:
        return self.key.split("/")[0]

    def among(self, wanted: Sequence[str] | None) -> bool:
        """Whether this row, or its group, is wanted; None wants all."""
        return wanted is None or self.key in wanted or self.group in wanted


def rows_of(shape_name: str, device: str = "cpu") -> list[Row]:
    """The rows for a shape on a device, in the order of the tables."""
    shape = SHAPES[shape_name]
    forward = [
        _forward(length, batch)
        for batch in shape.batches
        for length in shape.lengths
        if batch * length <= shape.most_tokens
    ]
    long = next(row for row in forward if row.key == "forward/1x1024")
    train = Row("train", f"a step of {BATCH} × {SEQUENCE} tokens", _train)
    return [
        *forward,
        Row("decode", f"a token after {PROMPT}", _decode),
        *([Row("graph", f"a token after {PROMPT}", _graph)] if device == "cuda" else []),
        Row("generate", f"a token of {WRITTEN} after {PROMPT}, prompt included", _generate),
        Row("trace", f"{SEQUENCE} tokens, all logits", _trace),
        train,
        replace(long, key="memory/forward", weighed=True),
        replace(train, key="memory/train", weighed=True),
        Row("experts/forward", f"forward, {SEQUENCE} tokens", partial(_experts, decode=False)),
        Row("experts/decode", f"a token after {PROMPT}", partial(_experts, decode=True)),
        Row("ranks/forward", f"forward, {SEQUENCE} tokens", _ranks),
    ]


def lora_name(rank: int) -> str:
    """What the LoRA of one rank is called."""
    return f"PEFT LoRA, rank {rank}"


def _lora_of_all(variants: Variants) -> str:
    """The variant that everything else is held against: one LoRA of the experts' total rank."""
    return lora_name(variants.shape.experts * variants.shape.rank)


def _against(reference: str, builders: Mapping[str, Callable[[], Case]]) -> Entries:
    return {name: Entry(build, reference) for name, build in builders.items()}


def _models(variants: Variants) -> dict[str, Callable[[], Forward]]:
    """Every variant that reads tokens."""
    count, rank = variants.shape.experts, variants.shape.rank
    ours: Callable[[], MixtureModel] = lambda: variants.lmoe(count, rank).model  # noqa: E731
    return {
        BASE: lambda: variants.base.model,
        lora_name(rank): lambda: variants.lora(rank),
        lora_name(count * rank): lambda: variants.lora(count * rank),
        "PEFT X-LoRA": lambda: variants.xlora(count, rank),
        "PEFT Arrow": lambda: variants.arrow(count, rank),
        f"{OURS} output": ours,
        f"{OURS} factor": lambda: variants.lmoe(count, rank, "factor").model,
        f"{OURS} output, plan": lambda: partial(ours(), plan=PLAN),
        f"{OURS} output, recorded": lambda: partial(ours(), record=True),
        FOLDED: lambda: variants.folded_lmoe(count, rank).model,
    }


def _forward(length: int, batch: int) -> Row:
    def entries(variants: Variants) -> Entries:
        ids = _ids(variants, batch, length)
        builders = {
            name: lambda build=build: reading(build(), ids)
            for name, build in _models(variants).items()
        }
        return _against(_lora_of_all(variants), builders)

    tokens = f"{batch} × {length:,}" if batch > 1 else f"{length:,}"
    return Row(f"forward/{batch}x{length}", f"{tokens} tokens", entries)


def _decode(variants: Variants) -> Entries:
    ids = _ids(variants, 1, PROMPT)
    builders: dict[str, Callable[[], Case]] = {}
    for name, build in _models(variants).items():
        write = rereading if "X-LoRA" in name else decoding
        builders[name] = lambda write=write, build=build: write(build(), ids)
    return _against(_lora_of_all(variants), builders)


def _graph(variants: Variants) -> Entries:
    """The same captured step for everyone who can be captured."""
    count, rank = variants.shape.experts, variants.shape.rank
    ids = _ids(variants, 1, PROMPT)
    ours = partial(variants.lmoe, count, rank)
    builders: dict[str, Callable[[], Case]] = {
        BASE: lambda: replaying(Unrouted(variants.base.model), ids),
        _lora_of_all(variants): lambda: replaying(Unrouted(variants.lora(count * rank)), ids),
        f"{OURS} output": lambda: replaying(ours().model, ids),
        f"{OURS} factor": lambda: replaying(ours("factor").model, ids),
        f"{OURS} output, plan": lambda: replaying(ours().model, ids, PLAN),
        FOLDED: lambda: replaying(variants.folded_lmoe(count, rank).model, ids),
    }
    return _against(BASE, builders)


def _generate(variants: Variants) -> Entries:
    count, rank = variants.shape.experts, variants.shape.rank
    ids = _ids(variants, 1, PROMPT)
    prompt = WORD * PROMPT

    def theirs(build: Callable[[], Any], tokens: int = WRITTEN) -> Callable[[], Case]:
        limits = {"max_new_tokens": tokens, "min_new_tokens": tokens}

        def run(model: Any, _state: None) -> object:
            mask = torch.ones_like(ids)
            return model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, pad_token_id=0, **limits
            )

        return lambda: Case(partial(run, build()), units=tokens)

    def ours(
        build: Callable[[int, int], Studio] = variants.lmoe, **choices: Any
    ) -> Callable[[], Case]:
        def run(studio: Studio, _state: None) -> object:
            return studio.generate(prompt, max_new_tokens=WRITTEN, **choices)

        return lambda: Case(partial(run, build(count, rank)), units=WRITTEN)

    def side_by_side(_state: None) -> object:
        plans = {f"e{n}": RoutingPlan([Override.solo(f"e{n}")]) for n in range(count)}
        return variants.lmoe(count, rank).compare(
            prompt, plans, base=False, max_new_tokens=WRITTEN, trace=False
        )

    builders: dict[str, Callable[[], Case]] = {
        BASE: theirs(lambda: variants.base.model),
        lora_name(count * rank): theirs(lambda: variants.lora(count * rank)),
        "PEFT X-LoRA": theirs(lambda: variants.xlora(count, rank), UNCACHED_TOKENS),
        "PEFT Arrow": theirs(lambda: variants.arrow(count, rank)),
        f"{OURS} output": ours(trace=False),
        f"{OURS} output, plan": ours(trace=False, plan=LATER_PLAN),
        f"{OURS} output, plan and trace": ours(plan=LATER_PLAN),
        FOLDED: ours(variants.folded_lmoe, trace=False),
        f"{OURS} output, {count} plans as one batch": lambda: Case(side_by_side, units=WRITTEN),
    }
    return _against(_lora_of_all(variants), builders)


def _trace(variants: Variants) -> Entries:
    count, rank = variants.shape.experts, variants.shape.rank
    ids = _ids(variants, 1, SEQUENCE)
    against = _lora_of_all(variants)

    def ours(**choices: Any) -> Callable[[], Case]:
        return lambda: reading(partial(variants.lmoe(count, rank).model, **choices), ids, keep=0)

    def trace() -> Case:
        model, texts = variants.lmoe(count, rank).model, TokenTexts(variants.base.tokenizer)
        return Case(lambda _: record_prompt(model, texts, ids[0].tolist()))

    builders: dict[str, Callable[[], Case]] = {
        BASE: lambda: reading(variants.base.model, ids, keep=0),
        against: lambda: reading(variants.lora(count * rank), ids, keep=0),
        f"{OURS} output": ours(),
        f"{OURS} output, recorded": ours(record=True),
        f"{OURS} output, recorded with contributions": ours(record=True, contributions=True),
        f"{OURS} output, full trace with token scores": trace,
    }
    return _against(against, builders)


def _train(variants: Variants) -> Entries:
    count, rank = variants.shape.experts, variants.shape.rank
    batch = training_batch(_ids(variants, BATCH, SEQUENCE))

    def theirs(model: Callable[[], Any]) -> Callable[[], Case]:
        return lambda: training(model(), batch)

    def ours(composition: Composition) -> Callable[[], Case]:
        return lambda: joint_training(variants.trained_lmoe(count, rank, composition), batch)

    builders = {
        lora_name(rank): theirs(lambda: variants.lora(rank, train=True)),
        lora_name(count * rank): theirs(lambda: variants.lora(count * rank, train=True)),
        "PEFT X-LoRA": theirs(lambda: variants.xlora(count, rank, train=True)),
        f"{OURS} output": ours("output"),
        f"{OURS} factor": ours("factor"),
    }
    return _against(_lora_of_all(variants), builders)


def _experts(variants: Variants, *, decode: bool) -> Entries:
    """More experts of a smaller rank each, the total rank unchanged."""
    total = variants.shape.experts * variants.shape.rank
    counts = [count for count in COUNTS if total % count == 0]
    ids = _ids(variants, 1, PROMPT if decode else SEQUENCE)
    case = decoding if decode else reading
    models: dict[str, Callable[[], Forward]] = {lora_name(total): lambda: variants.lora(total)}
    for count in (variants.shape.experts, counts[-1]):
        rank = total // count
        if not decode:
            models[f"PEFT X-LoRA {count} × {rank}"] = partial(variants.xlora, count, rank)
        models[f"PEFT Arrow {count} × {rank}"] = partial(variants.arrow, count, rank)
    for count in counts:
        models[f"{OURS} {count} × {total // count}"] = lambda count=count: (
            variants.lmoe(count, total // count).model
        )
    builders = {name: lambda build=build: case(build(), ids) for name, build in models.items()}
    return _against(lora_name(total), builders)


def _ranks(variants: Variants) -> Entries:
    """Experts of a larger rank each, against the one LoRA of their total rank."""
    count = variants.shape.experts
    ids = _ids(variants, 1, SEQUENCE)
    entries = {}
    for rank in RANKS:
        total = count * rank
        entries[lora_name(total)] = Entry(
            lambda total=total: reading(variants.lora(total), ids), lora_name(total)
        )
        entries[f"{OURS} {count} × {rank}"] = Entry(
            lambda rank=rank: reading(variants.lmoe(count, rank).model, ids), lora_name(total)
        )
    return entries


def _ids(variants: Variants, batch: int, length: int) -> Tensor:
    vocabulary = variants.base.model.config.vocab_size
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, vocabulary, (batch, length), generator=generator)
    return ids.to(variants.device)
