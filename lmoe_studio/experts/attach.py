"""Put bank layers into a Hugging Face causal language model, and take them out again."""

import re

import torch
from torch import nn

from lmoe_studio.errors import BaseMismatchError, BaseModelError
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.layer import CurrentMixing, LoRABankLinear


def attach_bank(
    model: nn.Module, bank: ExpertBank, current: CurrentMixing, *, dtype: torch.dtype | None = None
) -> dict[str, LoRABankLinear]:
    """Replace each linear layer that an expert changes by a bank layer around it.

    Args:
        model: the base model; changed in place until `detach_bank`.
        bank: its experts.
        current: where the bank layers look for the routing weights.
        dtype: of the experts' factors; None takes the base layer's.

    Returns:
        The bank layers by module path, in the bank's order.

    Raises:
        BaseMismatchError: the model lacks a layer, or its shape is another. Nothing is changed.
    """
    linears = {name: _linear(model, name, bank) for name in bank.modules}
    layers = {}
    for name, linear in linears.items():
        factors = [expert.adapter.factors.get(name) for expert in bank.experts]
        layer = LoRABankLinear(
            linear, factors, name=name, composition=bank.composition, current=current
        )
        place = next(linear.parameters())
        kind = dtype or (place.dtype if place.dtype.is_floating_point else torch.bfloat16)
        layer.lora_a.data = layer.lora_a.data.to(place.device, kind)
        layer.lora_b.data = layer.lora_b.data.to(place.device, kind)
        layer.expert_of_rank = layer.expert_of_rank.to(place.device)
        layer.scale_of_rank = layer.scale_of_rank.to(place.device)
        layer.train(linear.training)
        layers[name] = layer
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return layers


def detach_bank(model: nn.Module) -> None:
    """Put the base layers back, the very same objects that `attach_bank` took."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRABankLinear):
            model.set_submodule(name, module.base)


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Path and list of the decoder blocks: the outermost list as long as the config says.

    Raises:
        BaseModelError: the model has no such list.
    """
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not lists:
        raise BaseModelError(
            f"{type(model).__name__} shows no list of {count} decoder blocks; L-MoE Studio routes "
            "decoder-only language models in the manner of Llama."
        )
    return min(lists, key=lambda item: item[0].count("."))


def block_of(module: str, blocks: str) -> int | None:
    """Index of the decoder block that a module path lies in; None for one outside all blocks."""
    match = re.match(rf"{re.escape(blocks)}\.(\d+)\.", module)
    return int(match.group(1)) if match else None


def _linear(model: nn.Module, name: str, bank: ExpertBank) -> nn.Module:
    try:
        linear = model.get_submodule(name)
    except AttributeError:
        raise BaseMismatchError(
            f"Bank '{bank.name}' was made for {bank.base.id}, and this base model has no layer "
            f"{name}; load the bank with its own base model."
        ) from None
    if isinstance(linear, LoRABankLinear):
        raise BaseModelError("This base model has a bank attached already; detach that one first.")
    expected = next(e.adapter.factors[name] for e in bank.experts if name in e.adapter.factors)
    came = (getattr(linear, "out_features", None), getattr(linear, "in_features", None))
    if came != (expected.d_out, expected.d_in):
        raise BaseMismatchError(
            f"Bank '{bank.name}' was made for {bank.base.id}, whose {name} is "
            f"{expected.d_out}×{expected.d_in}; this base model's is {came[0]}×{came[1]}."
        )
    return linear
