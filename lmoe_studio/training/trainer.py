"""JointTrainer: transformers' Trainer with the joint loss of an L-MoE and checkpoints that hold.

Every loss is a mean over the tokens of the whole step, all its batches and processes. So a run of two
processes, or of small batches one after another, equals a run of one with the same sequences.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
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

from lmoe_studio.errors import StorageError, TrainingError
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.router import Router
from lmoe_studio.training.arguments import training_arguments
from lmoe_studio.training.checkpoints import Checkpoints
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.data import MixedSkills, SkillData, collate
from lmoe_studio.training.evaluate import evaluate
from lmoe_studio.training.events import CheckpointSaved, EvalDone, Event, StepDone
from lmoe_studio.training.gauges import routing_gauges
from lmoe_studio.training.joint_loss import WholeStep, look_ahead
from lmoe_studio.training.parameters import restore_parameters, whole_parameters
from lmoe_studio.training.processes import Processes

_WEIGHTS, _BEST = "model.safetensors", "best.safetensors"


class JointTrainer(Trainer):
    """`L = L_LM + λ_b L_balance + λ_z L_z + λ_s(step) L_skill`, over what is to be trained."""

    loss_is_scaled_for_ga = True  # compute_loss divides by what the whole step holds

    def __init__(
        self,
        model: MixtureModel,
        config: TrainingConfig,
        data: MixedSkills,
        checkpoints: Checkpoints,
        *,
        held_out: list[SkillData],
        base_losses: dict[str, float],
        on_event: Callable[[Event], None],
        should_stop: Callable[[], bool],
        processes: Processes,
    ) -> None:
        """Prepare to train.

        Args:
            model: its parameters with a gradient are trained.
            config: how.
            data: the training sequences.
            checkpoints: where to save.
            held_out: what to evaluate on during training.
            base_losses: of the base model on the same.
            on_event: hears what happens, in the main process.
            should_stop: asked after each step; True saves and stops.
            processes: who else trains.
        """
        super().__init__(
            model=model,
            args=training_arguments(config, checkpoints.folder),
            train_dataset=data,
            eval_dataset=held_out,  # pyright: ignore[reportArgumentType]  (evaluate() reads it)
            data_collator=collate,
            callbacks=[_Stops(self, should_stop)],
        )
        self.model_accepts_loss_kwargs = True  # so that Trainer divides nothing itself
        self.config = config
        self.mixture = model
        self.data = data
        self.checkpoints = checkpoints
        self.held_out = held_out
        self.base_losses = base_losses
        self.processes = processes
        self.stopped = False
        """Whether `should_stop` said so."""
        self.best: tuple[int, dict[str, Tensor]] | None = None
        """Step and parameters of the best evaluation, where training may stop early."""
        self._tell = on_event if processes.is_main else lambda _: None
        self._sums: dict[str, Tensor] = {}
        self._step: WholeStep | None = None
        self._clock = time.monotonic()
        self._staging = False
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)

    @property
    def curve(self) -> list[dict[str, float]]:
        """Losses of every step of the whole run, also of what went before a resume."""
        names = {"step": "step", "language": "loss", "balance": "balance", "skill": "skill"}
        return [
            {new: round(entry[old], 5) for old, new in names.items()}
            for entry in self.state.log_history
            if "language" in entry
        ]

    @property
    def seconds(self) -> float:
        """Time spent on the steps of the whole run."""
        logs = [entry["seconds"] for entry in self.state.log_history if "seconds" in entry]
        return logs[-1] if logs else 0.0

    # --- one step ---

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
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002
    ) -> Any:
        output = model(
            inputs["input_ids"], inputs["attention_mask"], steps=inputs["steps"], record=True
        )
        assert self._step is not None
        parts = self._step.losses(output, inputs)
        config = self.config
        loss = parts["language"] + config.balance_loss * parts["balance"]
        loss = loss + config.z_loss * parts["z"] + self._skill_weight() * parts["skill"]
        for name, part in (parts | {"joint": loss}).items():
            self._sums[name] = self._sums.get(name, 0) + part.detach()
        return (loss, output) if return_outputs else loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of a step, of which the losses have to know the whole."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        batches = [self._prepare_inputs(batch) for batch in batches]
        later, router = None, cast(Router, self.mixture.routers[0])
        if self.config.balance_loss and router.learned:
            later = look_ahead(self.model_wrapped or self.mixture, batches, router)
        self._step = WholeStep.of(batches, router, self.processes, later)
        return batches, items

    def _skill_weight(self) -> float:
        done = self.state.global_step / (self.config.steps * self.config.skill_loss_until)
        return self.config.skill_loss * max(0.0, 1 - done)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:  # noqa: ARG002
        return SequentialSampler(self.data)  # it is shuffled already

    # --- what is said about it ---

    def train(self, *args: Any, **options: Any) -> Any:
        self._clock = time.monotonic()
        return super().train(*args, **options)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss to what Trainer logs, and tell the listener."""
        if "grad_norm" not in logs:
            super().log(logs, start_time)
            return
        found = {k: self.processes.sum(v) / self.processes.count for k, v in self._sums.items()}
        self._sums = {}
        routing = found.pop("routing").cpu().double().numpy()
        logs |= {name: float(value) for name, value in found.items()}
        logs["seconds"] = self.seconds + time.monotonic() - self._clock
        self._clock = time.monotonic()
        super().log(logs, start_time)
        self._require_finite(logs)
        self._tell(self._step_done(logs, routing))

    def _step_done(self, logs: dict[str, float], routing: Any) -> StepDone:
        shares, health = routing_gauges(self.mixture.sites, self.mixture.bank.expert_names, routing)
        step, steps = self.state.global_step, self.state.max_steps
        recent = [e for e in self.state.log_history[-40:] if "seconds" in e]  # the pace of late
        first = recent[0]["seconds"] if len(recent) > 1 else 0.0
        pace = (recent[-1]["seconds"] - first) / max(1, len(recent) - 1)
        config = self.config
        sequences = config.batch_size * config.gradient_accumulation * self.processes.count
        return StepDone(
            step=step,
            steps=steps,
            loss=logs["joint"],
            language_loss=logs["language"],
            balance_loss=logs["balance"],
            z_loss=logs["z"],
            skill_loss=logs["skill"],
            learning_rate=float(logs["learning_rate"]),
            gradient_norm=float(logs["grad_norm"]),
            shares=shares,
            health=health,
            tokens_per_second=sequences * config.sequence_length / max(pace, 1e-9),
            seconds_left=pace * (steps - step),
        )

    def _require_finite(self, logs: dict[str, float]) -> None:
        if all(math.isfinite(logs[name]) for name in ("joint", "grad_norm")):
            return
        raise TrainingError(
            f"Training diverged at step {self.state.global_step}: the loss is {logs['joint']:g} and "
            f"the gradient norm {logs['grad_norm']:g}; {self._where_it_stands()} Try a lower "
            "learning rate, or float32."
        )

    def _where_it_stands(self) -> str:
        saved = sorted(int(p.name[11:]) for p in self.checkpoints.folder.glob("checkpoint-*"))
        return f"the checkpoint of step {saved[-1]} is kept." if saved else "nothing was saved yet."

    # --- held-out evaluation ---

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Losses on the held-out sequences; remembers the best parameters if need be."""
        losses = evaluate(self.mixture, self.held_out).losses
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, {})
        event = EvalDone(self.state.global_step, self.base_losses, losses)
        before = self._evaluated()
        logs = {"held_out": event.mean}
        self.log(dict(logs))
        if self.config.early_stopping:
            if event.mean < min(before, default=math.inf):
                self.best = (self.state.global_step, self.trained())
            patience, means = self.config.early_stopping, self._evaluated()
            if len(means) - 1 - means.index(min(means)) >= patience:
                self.control.should_training_stop = self.control.should_save = True
        self._tell(event)
        self._clock = time.monotonic()  # an evaluation is no part of a step
        return logs

    def _evaluated(self) -> list[float]:
        return [entry["held_out"] for entry in self.state.log_history if "held_out" in entry]

    # --- checkpoints ---

    def trained(self) -> dict[str, Tensor]:
        """Copies of the parameters that are trained, by name, on the CPU."""
        return whole_parameters(self.mixture)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put parameters back."""
        restore_parameters(self.mixture, tensors)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.checkpoints.staging) if self._staging else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step = self.state.global_step
        try:
            if self.processes.is_main:
                self.checkpoints.begin()
            self.processes.wait()
            self._staging = True
            super()._save_checkpoint(model, trial)
            self.processes.wait()
            if self.processes.is_main:
                folder = self.checkpoints.publish(step, self.config.keep_checkpoints)
                self._tell(CheckpointSaved(step, str(folder)))
            self.processes.wait()
        except torch.OutOfMemoryError:
            raise
        except (OSError, RuntimeError, SafetensorError) as error:
            self.checkpoints.abandon()
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise StorageError(
                f"The checkpoint of step {step} could not be written to {self.checkpoints.folder} "
                f"({reason}); {self._where_it_stands()} Make room there and start again to go on."
            ) from None
        finally:
            self._staging = False
            self._clock = time.monotonic()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        self._save(output_dir)  # also where the model is shared out over processes

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
        tensors = self.trained()
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.checkpoints.staging)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / _WEIGHTS)
        if self.best is not None:
            save_file(self.best[1], folder / _BEST, metadata={"step": str(self.best[0])})

    def _load_from_checkpoint(
        self,
        resume_from_checkpoint: str,
        model: nn.Module | None = None,  # noqa: ARG002
    ) -> None:
        folder = Path(resume_from_checkpoint)
        self.restore(load_file(folder / _WEIGHTS))
        if (folder / _BEST).exists():
            best = load_file(folder / _BEST)
            state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
            means = [(e["held_out"], e["step"]) for e in state.log_history if "held_out" in e]
            self.best = (int(min(means)[1]), best)


class _Stops(TrainerCallback):
    """Ends the run after a step, with a checkpoint, when it is told to."""

    def __init__(self, trainer: JointTrainer, should_stop: Callable[[], bool]) -> None:
        self.trainer = trainer
        self.should_stop = should_stop

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        asked = self.trainer.processes.is_main and self.should_stop()
        if self.trainer.processes.agree(asked, args.device) and state.global_step < state.max_steps:
            self.trainer.stopped = True
            control.should_save = control.should_training_stop = True
