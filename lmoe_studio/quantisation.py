"""Quantised base models: linear layers in 4 or 8 bits, by bitsandbytes; all else in full precision.

A quantised layer is an `nn.Linear` whose weight holds packed integers. Whoever wants to know what
such a weight stands for asks here.
"""

import importlib.util
from math import prod
from typing import Any, get_args

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PretrainedConfig

from lmoe_studio.config import Quantize
from lmoe_studio.errors import BaseModelError

_BITSANDBYTES = "bitsandbytes"


def check_quantize(quantize: str | None) -> None:
    """Raise BaseModelError for an unknown value, and where bitsandbytes is not installed."""
    if quantize is None:
        return
    if quantize not in get_args(Quantize):
        raise BaseModelError(
            f"quantize '{quantize}' is not one of {', '.join(get_args(Quantize))}; leave it out for "
            "full precision."
        )
    if importlib.util.find_spec(_BITSANDBYTES) is None:
        raise BaseModelError(
            f"quantize '{quantize}' needs bitsandbytes, which is not installed; run `pip install "
            "'lmoe-studio[quantised]'`, or leave it out for full precision."
        )


def loading_options(
    own: PretrainedConfig, quantize: str | None, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """What `from_pretrained` is to be told; nothing for a base in full precision.

    Args:
        own: the base model's config, which may say that its weights are quantised already.
        quantize: what is asked for.
        dtype: of the computation, and of all that is not quantised.
        device: a quantised model is loaded to where it is to run, and not moved.

    Raises:
        BaseModelError: the base is quantised already, and otherwise than is asked for.
    """
    method = quantisation_method(own)
    if method is None and quantize is None:
        return {}
    if method is None:
        return {"quantization_config": _how(quantize, dtype), "device_map": {"": device}}
    if quantize is not None and not _own_options(own).get(f"load_in_{quantize}"):
        raise BaseModelError(
            f"This base model is quantised already, with {method}, and not to {quantize}; leave "
            "`quantize` out, or name the base in full precision."
        )
    return {"device_map": {"": device}} if method == _BITSANDBYTES else {}


def settle_quantised(model: nn.Module) -> None:
    """Make the quantised layers of a model just loaded fit for training and for several threads.

    On CPUs with AVX512-BF16 bitsandbytes would repack a 4-bit weight in place when it is first used
    in evaluation mode, and from then on no gradient passes the layer. An 8-bit weight it would hand
    to the layer's state on first use, and two threads whose first use it is would lose it.

    Raises:
        BaseModelError: the weights are quantised by something else than bitsandbytes.
    """
    method = quantisation_method(getattr(model, "config", None))
    if method not in (None, _BITSANDBYTES):
        raise BaseModelError(
            f"This base model is quantised with {method}, and experts can be put beside layers in "
            "full precision or of bitsandbytes only; name the base in full precision, and set "
            "`quantize` if memory is short."
        )
    for linear in quantised_linears(model).values():
        layer: Any = linear
        if not hasattr(layer, "init_8bit_state"):
            layer.support_avx512bf16_for_cpu = False
        elif layer.weight.CB is not None:
            layer.init_8bit_state()


def quantisation_method(config: PretrainedConfig | None) -> str | None:
    """What the weights that belong to a config are quantised with; None in full precision."""
    method = _own_options(config).get("quant_method")
    return None if method is None else str(getattr(method, "value", method))


def quantised_as(model: nn.Module) -> str | None:
    """How a model was loaded, "4bit" or "8bit"; None in full precision."""
    return next((q for q in get_args(Quantize) if getattr(model, f"is_loaded_in_{q}", False)), None)


def is_as_asked(model: nn.Module, quantize: str | None) -> bool:
    """Whether the model is what loading it with `quantize` gives."""
    came_quantised = getattr(getattr(model, "hf_quantizer", None), "pre_quantized", False)
    return quantize == quantised_as(model) or (quantize is None and bool(came_quantised))


def is_quantised(module: nn.Module) -> bool:
    """Whether a module is a linear layer with a packed weight."""
    if not isinstance(module, nn.Linear):
        return False
    shape = (module.out_features, module.in_features)
    return not module.weight.is_floating_point() or tuple(module.weight.shape) != shape


def quantised_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers with packed weights, by path."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and is_quantised(module)
    }


def full_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter by name, as it is in full precision."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for path, linear in quantised_linears(model).items():
        shapes[f"{path}.weight"] = (linear.out_features, linear.in_features)
    return shapes


def count_parameters(model: nn.Module) -> int:
    """How many numbers the parameters stand for, packed or not."""
    return sum(map(prod, full_shapes(model).values()))


def _how(quantize: str | None, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Both leave the output layer and the embeddings as they are."""
    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def _own_options(config: PretrainedConfig | None) -> dict[str, Any]:
    own = getattr(config, "quantization_config", None) or {}
    return own if isinstance(own, dict) else own.to_dict()
