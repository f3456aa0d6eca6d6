"""A training config in the words of transformers' Trainer."""

from pathlib import Path

import torch
from transformers import TrainingArguments

from lmoe_studio.training.config import TrainingConfig


def uses_bfloat16(config: TrainingConfig) -> bool:
    """Whether to compute in bfloat16."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    on_gpu = torch.cuda.is_available() and config.device in ("auto", "cuda")
    return on_gpu and torch.cuda.is_bf16_supported()


def training_arguments(config: TrainingConfig, folder: Path) -> TrainingArguments:
    """What the Trainer is told; checkpoints go to `folder`."""
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        activation_checkpointing=config.gradient_checkpointing,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=round(config.warmup * config.steps),
        max_grad_norm=config.max_grad_norm,
        bf16=uses_bfloat16(config),
        use_cpu=config.device == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=config.steps_between_evaluations,
        save_strategy="steps",
        save_steps=config.steps_between_checkpoints,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=config.seed,
        data_seed=config.seed,
    )
