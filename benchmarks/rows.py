"""The rows of the tables: what is measured, and the cases of each. Nothing runs here yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.bases import SHAPES, WORD
from benchmarks.measure import Case
from benchmarks.variants import Variants
from lmoe_studio.mixture import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan, Span
from lmoe_studio.studio import Studio
from lmoe_studio.tracing.recorder import record_prompt
from lmoe_studio.tracing.token_texts import TokenTexts
from lmoe_studio.training.config import SkillConfig, TrainingConfig
from lmoe_studio.training.data import MixedSkills, SkillData, collate
from lmoe_studio.training.events import ignore
from lmoe_studio.training.trainer import JointTrainer

PROMPT, NEW_TOKENS = 128, 16
UNCACHED_TOKENS = 2
"""That X-LoRA writes in place of those: it reads the whole text twice for each."""
WRITTEN = 64
"""Tokens of a whole text."""
BATCH, SEQUENCE = 4, 256
COUNTS = (1, 2, 4, 8, 16, 32, 64)
RANKS = (4, 8, 16, 32, 64)
BASE = "base model"
OURS = "L-MoE"
PLAN = RoutingPlan([Override.solo("e3", layers=Span(start=1), strength=0.5), Override.ban("e1")])
LATER_PLAN = RoutingPlan(
    [
        Override.solo("e3", layers=Span(start=1), tokens="generated", strength=0.5),
        Override.ban("e1"),
    ]
)

Forward = Callable[..., Any]
"""Takes what a Hugging Face model takes; gives `logits` and `past_key_values`."""


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

    @property
    def group(self) -> str:
        return self.key.split("/")[0]

    def among(self, wanted: Sequence[str] | None) -> bool:
        """Whether this row, or its group, is wanted; None wants all."""
        return wanted is None or self.key in wanted or self.group in wanted


def rows_of(shape_name: str) -> list[Row]:
    """The timed rows for a shape, in the order of the tables."""
    shape = SHAPES[shape_name]
    return [
        *(
            _forward(length, batch)
            for batch in shape.batches
            for length in shape.lengths
            if batch * length <= shape.most_tokens
        ),
        Row("decode", f"a token after {PROMPT}", _decode),
        Row("generate", f"a token of {WRITTEN} after {PROMPT}, prompt included", _generate),
        Row("trace", f"{SEQUENCE} tokens, all logits", _trace),
        Row("train", f"a step of {BATCH} × {SEQUENCE} tokens", _train),
        Row("experts/forward", f"forward, {SEQUENCE} tokens", partial(_experts, decode=False)),
        Row("experts/decode", f"a token after {PROMPT}", partial(_experts, decode=True)),
        Row("ranks/forward", f"forward, {SEQUENCE} tokens", _ranks),
    ]


def memory_rows(rows: Sequence[Row]) -> dict[str, Row]:
    """Rows of memory by key, with the timed row whose cases each runs."""
    timed = {row.key: row for row in rows}
    return {"memory/forward": timed["forward/1x1024"], "memory/train": timed["train"]}


def lora_name(rank: int) -> str:
    """What the LoRA of one rank is called."""
    return f"PEFT LoRA, rank {rank}"


def _lora_of_all(variants: Variants) -> str:
    """The variant that everything else is held against: one LoRA of the experts' total rank."""
    return lora_name(variants.shape.experts * variants.shape.rank)


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
    }


def _forward(length: int, batch: int) -> Row:
    def entries(variants: Variants) -> Entries:
        ids = _ids(variants, batch, length)
        against = _lora_of_all(variants)
        return {
            name: Entry(lambda build=build: _reading(build(), ids), against)
            for name, build in _models(variants).items()
        }

    tokens = f"{batch} × {length:,}" if batch > 1 else f"{length:,}"
    return Row(f"forward/{batch}x{length}", f"{tokens} tokens", entries)


def _decode(variants: Variants) -> Entries:
    ids = _ids(variants, 1, PROMPT)
    against = _lora_of_all(variants)
    return {
        name: Entry(
            lambda build=build, write=_rereading if "X-LoRA" in name else _decoding: write(
                build(), ids
            ),
            against,
        )
        for name, build in _models(variants).items()
    }


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

    def ours(**choices: Any) -> Callable[[], Case]:
        studio: Studio = variants.lmoe(count, rank)
        return lambda: Case(
            lambda _: studio.generate(prompt, max_new_tokens=WRITTEN, **choices), units=WRITTEN
        )

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
        f"{OURS} output": lambda: ours(trace=False)(),
        f"{OURS} output, plan": lambda: ours(trace=False, plan=LATER_PLAN)(),
        f"{OURS} output, plan and trace": lambda: ours(plan=LATER_PLAN)(),
        f"{OURS} output, {count} plans as one batch": lambda: Case(side_by_side, units=WRITTEN),
    }
    return {name: Entry(build, _lora_of_all(variants)) for name, build in builders.items()}


def _trace(variants: Variants) -> Entries:
    count, rank = variants.shape.experts, variants.shape.rank
    ids = _ids(variants, 1, SEQUENCE)
    against = _lora_of_all(variants)

    def ours(**choices: Any) -> Callable[[], Case]:
        return lambda: _reading(partial(variants.lmoe(count, rank).model, **choices), ids, keep=0)

    def trace() -> Case:
        model, texts = variants.lmoe(count, rank).model, TokenTexts(variants.base.tokenizer)
        return Case(lambda _: record_prompt(model, texts, ids[0].tolist()))

    builders: dict[str, Callable[[], Case]] = {
        BASE: lambda: _reading(variants.base.model, ids, keep=0),
        against: lambda: _reading(variants.lora(count * rank), ids, keep=0),
        f"{OURS} output": ours(),
        f"{OURS} output, recorded": ours(record=True),
        f"{OURS} output, recorded with contributions": ours(record=True, contributions=True),
        f"{OURS} output, full trace with token scores": trace,
    }
    return {name: Entry(build, against) for name, build in builders.items()}


def _train(variants: Variants) -> Entries:
    count, rank = variants.shape.experts, variants.shape.rank
    builders: dict[str, Callable[[], Case]] = {
        lora_name(rank): lambda: _training(variants, variants.lora(rank, train=True)),
        lora_name(count * rank): lambda: _training(
            variants, variants.lora(count * rank, train=True)
        ),
        "PEFT X-LoRA": lambda: _training(variants, variants.xlora(count, rank, train=True)),
        f"{OURS} output": lambda: _joint_training(variants, variants.trained_lmoe(count, rank)),
        f"{OURS} factor": lambda: _joint_training(
            variants, variants.trained_lmoe(count, rank, "factor")
        ),
    }
    return {name: Entry(build, _lora_of_all(variants)) for name, build in builders.items()}


def _experts(variants: Variants, *, decode: bool) -> Entries:
    """More experts of a smaller rank each, the total rank unchanged."""
    total = variants.shape.experts * variants.shape.rank
    counts = [count for count in COUNTS if total % count == 0]
    ids = _ids(variants, 1, PROMPT if decode else SEQUENCE)
    case = _decoding if decode else _reading
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
    return {
        name: Entry(lambda build=build: case(build(), ids), lora_name(total))
        for name, build in models.items()
    }


def _ranks(variants: Variants) -> Entries:
    """Experts of a larger rank each, against the one LoRA of their total rank."""
    count = variants.shape.experts
    ids = _ids(variants, 1, SEQUENCE)
    entries = {}
    for rank in RANKS:
        total = count * rank
        entries[lora_name(total)] = Entry(
            lambda total=total: _reading(variants.lora(total), ids), lora_name(total)
        )
        entries[f"{OURS} {count} × {rank}"] = Entry(
            lambda rank=rank: _reading(variants.lmoe(count, rank).model, ids), lora_name(total)
        )
    return entries


def _ids(variants: Variants, batch: int, length: int) -> Tensor:
    config = variants.base.model.config
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, config.vocab_size, (batch, length), generator=generator)
    return ids.to(variants.device)


def _reading(forward: Forward, ids: Tensor, keep: int = 1) -> Case:
    """A forward pass; by default with the logits of the last token only, as before writing."""

    @torch.inference_mode()
    def run(_state: None) -> None:
        forward(input_ids=ids, use_cache=False, logits_to_keep=keep)

    return Case(run)


def _decoding(forward: Forward, ids: Tensor) -> Case:
    """Greedy tokens under the cache, the same loop for everyone; the prompt is read beforehand."""

    @torch.inference_mode()
    def prepare() -> tuple[Any, Tensor]:
        output = forward(input_ids=ids, use_cache=True, logits_to_keep=1)
        return output.past_key_values, output.logits.argmax(dim=-1)

    @torch.inference_mode()
    def run(state: tuple[Any, Tensor]) -> None:
        cache, token = state
        for _ in range(NEW_TOKENS):
            output = forward(
                input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            token = output.logits.argmax(dim=-1)

    return Case(run, prepare, units=NEW_TOKENS)


def _rereading(forward: Forward, ids: Tensor) -> Case:
    """Greedy tokens without a cache."""

    @torch.inference_mode()
    def run(_state: None) -> None:
        text = ids
        for _ in range(UNCACHED_TOKENS):
            output = forward(input_ids=text, use_cache=False, logits_to_keep=1)
            text = torch.cat([text, output.logits.argmax(dim=-1)], dim=1)

    return Case(run, units=UNCACHED_TOKENS)


def _training(variants: Variants, model: Any) -> Case:
    """A step of a plain adapter under the model's own loss."""
    batch = {name: tensor.to(variants.device) for name, tensor in _batch(variants).items()}
    parameters = [p for p in model.parameters() if p.requires_grad]

    def loss() -> Tensor:
        return model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=batch["labels"],
            use_cache=False,
        ).loss

    return _stepping(variants, loss, torch.optim.AdamW(parameters, lr=1e-4))


def _joint_training(variants: Variants, model: MixtureModel) -> Case:
    """A step of experts and routers under the joint loss, both as `run_training` has them."""
    skills = tuple(
        SkillConfig(name=name, train=(Path("none.jsonl"),)) for name in model.bank.expert_names
    )
    config = TrainingConfig(
        name="speed",
        skills=skills,
        out=Path("none"),
        rank=variants.shape.rank,
        batch_size=BATCH,
        sequence_length=SEQUENCE,
        device=variants.device,
    )
    trainer = JointTrainer(model, config, _skills(variants), ignore, "none")
    batch = {name: tensor.to(variants.device) for name, tensor in _batch(variants).items()}
    return _stepping(
        variants, lambda: trainer.compute_loss(model, batch), trainer.create_optimizer()
    )


def _stepping(
    variants: Variants, loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer
) -> Case:
    mixed = variants.device == "cuda"  # as Trainer does it with bf16

    def run(_state: None) -> None:
        optimizer.zero_grad()
        with torch.autocast(variants.device, torch.bfloat16, enabled=mixed):
            value = loss()
        value.backward()
        optimizer.step()

    return Case(run)


def _skills(variants: Variants) -> MixedSkills:
    """Random sequences, one a skill."""
    rows = _ids(variants, variants.shape.experts, SEQUENCE).tolist()
    skills = [SkillData(f"e{index}", [row], []) for index, row in enumerate(rows)]
    return MixedSkills(skills, len(rows), seed=0)


def _batch(variants: Variants) -> dict[str, Tensor]:
    data = _skills(variants)
    return collate([data[index] for index in range(BATCH)])
