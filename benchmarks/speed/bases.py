"""The base models that speed is measured on, and copies of one that share its weights."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from lmoe_studio.base_models import EMBEDDED_BASE, BaseModel, identify, load_base

WORD = " a"
"""One token in every base's tokenizer, also when repeated."""


@dataclass(frozen=True)
class Shape:
    """A base model and the bank that goes with it."""

    experts: int
    rank: int
    config: dict[str, Any] | None
    """Of a Llama with random weights; None for the embedded base model."""
    batches: tuple[int, ...] = (1, 8)
    lengths: tuple[int, ...] = (64, 256, 1024)
    most_tokens: int = 8192
    """Of one forward pass; larger ones take a CPU minutes."""


SHAPES = {
    "smollm2-135m": Shape(8, 8, None, most_tokens=2048),
    "llama-135m": Shape(
        8,
        8,
        {
            "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
            "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        },
        most_tokens=2048,
    ),
    "llama-8b": Shape(
        8,
        16,
        {
            "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        },
        lengths=(64, 256, 1024, 2048),
    ),
    "tiny": Shape(
        8,
        2,
        {
            "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
        },
        lengths=(64, 1024),
        most_tokens=1024,
    ),
}  # fmt: skip
"""`llama-135m` is SmolLM2's shape with random weights, where nothing can be fetched; `tiny` is there to try the script: its figures say nothing."""


def load_shape(name: str, device: str) -> BaseModel:
    """A base model by the name of its shape: float32 on a CPU, bfloat16 on a GPU."""
    config = SHAPES[name].config
    base = load_base(EMBEDDED_BASE, device=device) if config is None else _random(config, device)
    settings: Any = base.model.generation_config
    settings.eos_token_id = None  # no end before the length
    base.tokenizer.eos_token = None
    return base


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """Another model with modules of its own and the very same weights in memory."""
    shared = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})


def _random(config: dict[str, Any], device: str) -> BaseModel:
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):  # made where it will be
        model: Any = AutoModelForCausalLM.from_config(LlamaConfig(**config), dtype=dtype)
    model.eval().requires_grad_(False)
    return BaseModel(model, _numbers(config["vocab_size"]), identify(model, "random"))


def _numbers(count: int) -> PreTrainedTokenizerFast:
    """A tokenizer of as many words: one for the prompts, the others numbers."""
    words = {WORD.strip(): 0} | {str(number): number for number in range(1, count)}
    tokenizer = Tokenizer(WordLevel(words, unk_token=WORD.strip()))
    tokenizer.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
