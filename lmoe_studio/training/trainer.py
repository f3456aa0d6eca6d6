"""JointTrainer: transformers' Trainer with the joint loss of an L-MoE."""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from lmoe_studio.mixture import MixtureModel
from lmoe_studio.routing.losses import load_balancing_loss, router_z_loss, skill_loss
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.data import MixedSkills, collate
from lmoe_studio.training.events import Event, StepDone


class JointTrainer(Trainer):
    """`L = L_LM + λ_b L_balance + λ_z L_z + λ_s(step) L_skill`, experts and router together."""

    loss_is_scaled_for_ga = False  # a per-batch mean: Trainer divides it for accumulation

    def __init__(
        self,
        model: MixtureModel,
        config: TrainingConfig,
        data: MixedSkills,
        on_event: Callable[[Event], None],
        folder: str,
    ) -> None:
        super().__init__(
            model=model,
            args=_arguments(config, folder),
            train_dataset=data,
            data_collator=collate,
            callbacks=[_Reporter(self, config, on_event)],
        )
        self.config = config
        self.parts: dict[str, Tensor] = {}
        self.mixture = model
        self.data = data
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with a learning rate of its own for the routers."""
        named = [(n, p) for n, p in (model or self.mixture).named_parameters() if p.requires_grad]
        experts = [p for n, p in named if "routers." not in n]
        routers = [p for n, p in named if "routers." in n]
        groups = [
            {"params": experts, "lr": self.config.learning_rate},
            {"params": routers, "lr": self.config.router_learning_rate, "weight_decay": 0.0},
        ]
        decay = self.config.weight_decay
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=decay)
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002 Trainer passes it
    ) -> Any:
        output = model(inputs["input_ids"], inputs["attention_mask"], record=True)
        mask = inputs["attention_mask"].bool()
        language = next_token_loss(output.logits, inputs["labels"])
        balance = load_balancing_loss(output.routing.probs, mask)
        z = router_z_loss(output.routing.logits, mask)
        skill = skill_loss(output.routing.probs, inputs["skills"], mask)
        config = self.config
        loss = language + config.balance_loss * balance + config.z_loss * z
        loss = loss + self._skill_weight() * skill
        # Detached tensors: reading them here would wait for the device every step.
        self.parts = {"loss": loss.detach(), "language": language.detach(),
                      "balance": balance.detach(), "skill": skill.detach()}  # fmt: skip
        return (loss, output) if return_outputs else loss

    def _skill_weight(self) -> float:
        done = self.state.global_step / (self.config.steps * self.config.skill_loss_until)
        return self.config.skill_loss * max(0.0, 1 - done)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:  # noqa: ARG002
        return SequentialSampler(self.data)  # it is shuffled already


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each token given those before it; -100 is left out."""
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
    )


class _Reporter(TrainerCallback):
    """Turns Trainer's logs into events."""

    def __init__(
        self, trainer: JointTrainer, config: TrainingConfig, on_event: Callable[[Event], None]
    ) -> None:
        self.trainer = trainer
        self.config = config
        self.on_event = on_event
        self.started = time.monotonic()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002 the order is Trainer's
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "grad_norm" not in logs:
            return
        parts = {name: float(value) for name, value in self.trainer.parts.items()}
        seconds = (time.monotonic() - self.started) / state.global_step
        self.on_event(
            StepDone(
                step=state.global_step,
                steps=state.max_steps,
                loss=parts["loss"],
                language_loss=parts["language"],
                balance_loss=parts["balance"],
                skill_loss=parts["skill"],
                learning_rate=float(logs["learning_rate"]),
                gradient_norm=float(logs["grad_norm"]),
                tokens_per_second=self.config.tokens_a_step / seconds,
                seconds_left=seconds * (state.max_steps - state.global_step),
            )
        )


def _arguments(config: TrainingConfig, folder: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        activation_checkpointing=config.gradient_checkpointing,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=round(config.warmup * config.steps),
        max_grad_norm=config.max_grad_norm,
        bf16=torch.cuda.is_available() and config.device in ("auto", "cuda"),
        use_cpu=config.device == "cpu",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=config.seed,
        data_seed=config.seed,
    )
