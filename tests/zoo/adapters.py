"""Adapters as PEFT writes them, of every linear layer and all fused experts of a base's decoder blocks."""

import copy
import re
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lmoe_studio.architecture import layer_shapes

RANKS = {"prose": 4, "sql": 6, "math": 8}
# PEFT itself refuses these layers, or the base reads their weights without calling them, or they give
# more than one tensor.
_UNUSABLE = {
    "llama4_text": ("router",),
    "phimoe": ("router",),
    "mamba": ("out_proj", "dt_proj"),
    "mamba2": ("out_proj",),
    "falcon_h1": ("out_proj",),
    "jamba": ("dt_proj",),
    "nemotron_h": ("out_proj",),
    "zamba2": ("out_proj",),
}


def linear_layers(base: PreTrainedModel) -> list[str]:
    """Paths of the linear layers in the base's decoder blocks that an adapter can be on."""
    decoder = base.get_decoder()
    count = base.config.get_text_config(decoder=True).num_hidden_layers
    inside = {id(module) for module in decoder.modules()}
    blocks = max(
        (
            (name, module)
            for name, module in base.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == count and id(module) in inside
        ),
        key=lambda found: sum(p.numel() for p in found[1].parameters()),
    )[0]
    unusable = _UNUSABLE.get(base.config.model_type, ())
    return [
        name
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and name.startswith(f"{blocks}.")
        and name.rsplit(".", 1)[-1] not in unusable
    ]


def fused_weights(base: PreTrainedModel) -> list[str]:
    """Weights of fused experts, as `target_parameters` has them."""
    shapes = layer_shapes(base)
    return sorted({".".join(p.split(".")[-2:]) for p, shape in shapes.items() if len(shape) > 2})


def write_adapters(base: PreTrainedModel, folder: Path) -> dict[str, Path]:
    """Random adapters of different ranks, one folder each."""
    layers = linear_layers(base)
    folders = {}
    for seed, (name, rank) in enumerate(RANKS.items()):
        torch.manual_seed(seed)
        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules="|".join(map(re.escape, layers)), init_lora_weights=False,
            task_type="CAUSAL_LM", target_parameters=fused_weights(base) or None,
        )  # fmt: skip
        model = get_peft_model(copy.deepcopy(base), config)
        for key, tensor in model.named_parameters():
            if "lora_" in key:
                tensor.data.normal_(std=0.03)
        folders[name] = folder / name
        model.save_pretrained(folders[name], save_embedding_layers=False)
    return folders


def with_peft(base: PreTrainedModel, folder: Path) -> PeftModel:
    return PeftModel.from_pretrained(copy.deepcopy(base), str(folder)).eval()
