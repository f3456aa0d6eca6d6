"""What differs from one architecture of transformers to the next, each answered in one place.

A base model is a decoder that reads text, or the language part of a model that reads more.
"""

from typing import Any, NoReturn

from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from lmoe_studio.errors import BaseModelError

UNBOUNDED = 1 << 20
"""Tokens that a model without a limit of its own is given at most, such as a state-space model."""

_LENGTHS = ("max_position_embeddings", "max_seq_len", "context_length")
_NOT_ROUTED = {
    "recurrent_gemma": "keeps what it has read inside itself, so that two texts cannot be written "
    "side by side",
    "zamba2": "runs the same weights at several depths, with one update for all of them",
    "rwkv": "changes its own weights between training and use and reads no padding",
}
_READ_THE_PAST = ("kv_b_proj",)
"""Layers that read the tokens of the cache again in every pass."""
FUSED = ("gate_up_proj", "up_proj", "down_proj")
"""Weights of fused experts, in the order in which they are used."""
_READ_ON_SINGLY = ("falcon_mamba", "jamba", "mamba")
"""What these remember of a text is taken up by a pass over one token only."""


def language_config(model: nn.Module) -> Any:
    """The config of the part that reads text; the model's own where there is no other part."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def context_length(model: nn.Module) -> int:
    """How many tokens the model can read."""
    config = language_config(model)
    lengths = (getattr(config, name, None) for name in _LENGTHS)
    return next((int(one) for one in lengths if isinstance(one, int) and one > 0), UNBOUNDED)


def embedded_tokens(model: PreTrainedModel) -> int:
    """How many tokens the model has an embedding for."""
    embeddings: Any = model.get_input_embeddings()
    return int(embeddings.weight.shape[0])


def hidden_width(model: nn.Module) -> int:
    """How wide the hidden states are that the decoder blocks read."""
    return int(language_config(model).hidden_size)


def reads_the_past(layer: str) -> bool:
    """Whether a layer reads all tokens of a text in each pass under the cache, not only new ones."""
    return layer.endswith(_READ_THE_PAST)


def reads_on_singly(model: nn.Module) -> bool:
    """Whether what follows a cached text has to be read token by token."""
    return getattr(language_config(model), "model_type", None) in _READ_ON_SINGLY


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Path and list of the decoder blocks: of the lists as long as the config says, the largest.

    Raises:
        BaseModelError: the model has no such list.
    """
    count = getattr(language_config(model), "num_hidden_layers", None)
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model  # pyright: ignore[reportCallIssue]
    inside = {id(module) for module in decoder.modules()}
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and id(module) in inside
    ]
    if not lists:
        raise BaseModelError(
            f"{type(model).__name__} shows no list of {count} decoder blocks; L-MoE Studio routes "
            "decoder-only language models in the manner of Llama."
        )
    return max(lists, key=lambda item: sum(one.numel() for one in item[1].parameters()))


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """`(d_out, d_in)` of a linear layer, however its weight lies in memory; None for any other."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, Conv1D):
        return module.nf, module.nx
    return None


def weight_is_transposed(module: nn.Module) -> bool:
    """Whether weights are `[d_in, d_out]`: those of a linear layer, as GPT-2's, or of fused experts."""
    return isinstance(module, Conv1D) or getattr(module, "is_transposed", False) is True


def fused_shapes(module: nn.Module) -> dict[str, tuple[int, int, int]]:
    """`(fused, d_out, d_in)` of the weights that hold a matrix for each expert of a base's own mixture.

    By name, in the order in which the module has them; none of a module that is no such mixture, or
    whose experts run otherwise than `use_experts_implementation` of transformers says.
    """
    if not (hasattr(module, "has_gate") and hasattr(module, "is_transposed")):
        return {}
    found = {}
    for name, weight in module.named_parameters(recurse=False):
        if name in FUSED and weight.ndim == 3 and weight.is_floating_point():
            fused, *sides = weight.shape
            d_out, d_in = sides[::-1] if weight_is_transposed(module) else sides
            found[name] = fused, d_out, d_in
    return found


def layer_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of each weight that an expert can change, by path; see `linear_shape`, `fused_shapes`."""
    found: dict[str, tuple[int, ...]] = {}
    for path, module in model.named_modules():
        if shape := linear_shape(module):
            found[path] = shape
        found |= {f"{path}.{name}": shape for name, shape in fused_shapes(module).items()}
    return found


def loader_of(base: str, config: PreTrainedConfig) -> Any:
    """The class of transformers that loads a base model with this config.

    Raises:
        BaseModelError: it is no decoder that writes text, or one that cannot be routed.
    """
    kind = str(config.model_type)
    if config.is_encoder_decoder:
        _refuse(base, kind, "is an encoder with a decoder")
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and getattr(config, "is_decoder", None) is False:
        _refuse(base, kind, "is an encoder, whose tokens see those after them")
    if kind in _NOT_ROUTED:
        _refuse(base, kind, _NOT_ROUTED[kind])
    loaders: tuple[Any, ...] = (AutoModelForCausalLM, AutoModelForImageTextToText)
    found = next((one for one in loaders if type(config) in one._model_mapping), None)
    if found is None and not getattr(config, "auto_map", None):
        _refuse(base, kind, "is no language model that transformers knows")
    return (
        found or AutoModelForCausalLM
    )  # which says that code of the model's own would have to run


def _refuse(base: str, kind: str, why: str) -> NoReturn:
    raise BaseModelError(
        f"The base model '{base}' ({kind}) {why}; L-MoE Studio routes decoder-only language models, "
        "and the language part of models that read images too. docs/models.md lists them."
    )
