"""What the cases do: read tokens, write tokens, take a training step."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from benchmarks.speed.measure import Case
from lmoe_studio.generation.replay import CudaGraph, Replayable, ReplayedSteps
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.mixture.past import Memory
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.routing.router import TokenBatch
from lmoe_studio.training.checkpoints import Checkpoints
from lmoe_studio.training.config import SkillConfig, TrainingConfig
from lmoe_studio.training.data import MixedSkills, collate
from lmoe_studio.training.events import ignore
from lmoe_studio.training.examples import Example
from lmoe_studio.training.processes import Processes
from lmoe_studio.training.start import choose_trained
from lmoe_studio.training.trainer import JointTrainer

PROMPT, NEW_TOKENS = 128, 16
UNCACHED_TOKENS = 2
"""That X-LoRA writes in place of those: it reads the whole text twice for each."""
WRITTEN = 64
"""Tokens of a whole text."""
BATCH, SEQUENCE = 4, 256

Forward = Callable[..., Any]
"""Takes what a Hugging Face model takes; gives `logits` and `past_key_values`."""


def reading(forward: Forward, ids: Tensor, *, keep: int = 1) -> Case:
    """A forward pass; by default with the logits of the last token only, as before writing."""

    @torch.inference_mode()
    def run(_state: None) -> None:
        forward(input_ids=ids, use_cache=False, logits_to_keep=keep)

    return Case(run)


def decoding(forward: Forward, ids: Tensor) -> Case:
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


class Unrouted:
    """A model without routers, as `ReplayedSteps` takes a routed one: what a captured step costs."""

    def __init__(self, base: Any) -> None:
        self.base = base
        self.parameters = base.parameters

    def __call__(self, ids: Tensor, **options: Any) -> Any:
        return self.base(input_ids=ids, **options)

    def compile_plan(self, _plans: object, _tokens: TokenBatch, **_: object) -> None:
        """There is nothing to steer."""

    def typed(self, tokens: TokenBatch, past: Memory) -> tuple[TokenBatch, Memory]:
        """Nothing tells types apart."""
        return tokens, past

    def run_pass(
        self, tokens: TokenBatch, attention_mask: Tensor, *, past_key_values: Cache, **_: object
    ) -> Any:
        return self.base(
            input_ids=tokens.ids,
            attention_mask=attention_mask,
            position_ids=tokens.positions,
            past_key_values=past_key_values,
            use_cache=True,
        )


def replaying(
    model: Any,
    ids: Tensor,
    plan: RoutingPlan | None = None,
    replayable: Callable[[], Replayable] | None = None,
) -> Case:
    """Greedy tokens by a captured step, replayed; prompt and capture come beforehand."""
    replayable = replayable or partial(CudaGraph, ids.device)
    plans = [plan] * len(ids)

    def step(steps: ReplayedSteps, token: Tensor) -> Tensor:
        return steps.read(token, plans).logits.argmax(dim=-1)

    @torch.inference_mode()
    def prepare() -> tuple[ReplayedSteps, Tensor]:
        output = model(ids, use_cache=True, logits_to_keep=1)
        padding = torch.zeros_like(ids, dtype=torch.bool)
        steps = ReplayedSteps(
            model, output.past_key_values, padding, record=False, contributions=False,
            replayable=replayable,
        )  # fmt: skip
        token = output.logits.argmax(dim=-1)
        for _ in range(2):
            token = step(steps, token)
        return steps, token

    @torch.inference_mode()
    def run(state: tuple[ReplayedSteps, Tensor]) -> None:
        steps, token = state
        for _ in range(NEW_TOKENS):
            token = step(steps, token)

    return Case(run, prepare, units=NEW_TOKENS)


def rereading(forward: Forward, ids: Tensor) -> Case:
    """Greedy tokens without a cache."""

    @torch.inference_mode()
    def run(_state: None) -> None:
        text = ids
        for _ in range(UNCACHED_TOKENS):
            output = forward(input_ids=text, use_cache=False, logits_to_keep=1)
            text = torch.cat([text, output.logits.argmax(dim=-1)], dim=1)

    return Case(run, units=UNCACHED_TOKENS)


def training(model: Any, batch: dict[str, Tensor]) -> Case:
    """A step of a plain adapter under the model's own loss."""
    parameters = [p for p in model.parameters() if p.requires_grad]

    def loss() -> Tensor:
        return model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=batch["labels"],
            use_cache=False,
        ).loss

    return _stepping(loss, torch.optim.AdamW(parameters, lr=1e-4), batch)


def joint_training(model: MixtureModel, batch: dict[str, Tensor]) -> Case:
    """A step of experts and routers under the joint loss, both as `run_training` has them."""
    device = batch["input_ids"].device.type
    with tempfile.TemporaryDirectory() as folder:
        config = TrainingConfig(
            name="speed",
            skills=tuple(
                SkillConfig(name=name, train=(Path("none.txt"),))
                for name in model.bank.expert_names
            ),
            out=Path(folder) / "bank",
            batch_size=BATCH,
            sequence_length=SEQUENCE,
            device=device,
        )
        choose_trained(model, config)
        trainer = JointTrainer(
            model,
            config,
            MixedSkills([], 0, seed=0),
            Checkpoints(Path(folder), "speed"),
            held_out=[],
            base_losses={},
            on_event=ignore,
            should_stop=lambda: False,
            processes=Processes(),
        )
    trainer.current_gradient_accumulation_steps = 1  # Trainer's loop would say so

    def loss() -> Tensor:
        (prepared,), _ = trainer.get_batch_samples(iter([batch]), 1, batch["input_ids"].device)
        return trainer.compute_loss(model, prepared)

    return _stepping(loss, trainer.create_optimizer(), batch)


def training_batch(rows: Tensor) -> dict[str, Tensor]:
    """Sequences as training collates them, each of another skill."""
    examples = [Example(row, row, [-1] * len(row)) for row in rows.tolist()]
    batch = collate([{"example": one, "skill": skill} for skill, one in enumerate(examples)])
    return {name: tensor.to(rows.device) for name, tensor in batch.items()}


def _stepping(
    loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, batch: dict[str, Tensor]
) -> Case:
    device = batch["input_ids"].device.type

    def run(_state: None) -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):  # as Trainer does
            value = loss()
        value.backward()
        optimizer.step()

    return Case(run)
