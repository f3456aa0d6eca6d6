"""Put bank layers into a Hugging Face causal language model, and take them out again."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from lmoe_studio.architecture import fused_shapes, linear_shape
from lmoe_studio.errors import BaseMismatchError, BaseModelError
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.fused import FusedExperts, FusedWeight, LoRABankFused
from lmoe_studio.experts.layer import (
    BankLayer,
    CurrentMixing,
    LoRABankLinear,
    SharedInput,
    check_composition,
)
from lmoe_studio.experts.layout import RankLayout
from lmoe_studio.experts.lora import LoraFactors
from lmoe_studio.quantisation import is_quantised

_READ_ALIKE = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Linear layers of one parent that read the same tensor, by their names in Llama-like models."""
REPLACING = (LoRABankLinear, FusedExperts)
"""What stands in the place of a module of the base model, which it has as `base`."""


class _Place(NamedTuple):
    """Where the factors of a layer live."""

    device: torch.device
    dtype: torch.dtype


def attach_bank(
    model: nn.Module, bank: ExpertBank, current: CurrentMixing, *, dtype: torch.dtype | None = None
) -> dict[str, BankLayer]:
    """Put a bank layer around each linear layer, and each weight of fused experts, that an expert changes.

    Args:
        model: the base model; changed in place until `detach_bank`.
        bank: its experts.
        current: where the bank layers look for the routing weights.
        dtype: of the experts' factors; None takes the base layer's, and the model's own beside a
            quantised one.

    Returns:
        The bank layers by module path, in the bank's order.

    Raises:
        BaseMismatchError: the model lacks a layer, or its shape is another. Nothing is changed.
        AdapterError: composition `factor` and experts of different ranks. Nothing is changed.
    """
    linears = {name: _layer(model, name, bank) for name in bank.modules}
    full = next(p.dtype for p in model.parameters() if p.is_floating_point())
    places = {
        name: _place(linear, dtype or (full if is_quantised(linear) else None))
        for name, linear in linears.items()
    }
    factors = {
        name: [_moved(expert.adapter.factors.get(name), places[name]) for expert in bank.experts]
        for name in linears
    }
    for name, parts in factors.items():
        check_composition(name, parts, bank.composition)
    layouts = list[tuple[_Place, RankLayout]]()
    layers = dict[str, BankLayer]()
    for name, linear in linears.items():
        layout = _shared_layout(layouts, RankLayout(factors[name]), places[name])
        kind = LoRABankFused if isinstance(linear, FusedWeight) else LoRABankLinear
        layer = kind(linear, factors[name], name=name, layout=layout, current=current)
        layers[name] = layer.train(linear.training)
    for names in _readers_of_one_input(linears, places):
        source = SharedInput(
            [factors[name] for name in names],
            [layers[name].layout for name in names],
            bank.composition,
        )
        for place, name in enumerate(names):
            layers[name].share(source, place)
    for name, layer in layers.items():
        parent = name.rpartition(".")[0]
        if isinstance(layer, LoRABankFused):
            experts = model.get_submodule(parent)
            if not isinstance(experts, FusedExperts):
                model.set_submodule(parent, FusedExperts(experts, current).train(experts.training))
        model.set_submodule(name, layer)
    return layers


def detach_bank(model: nn.Module) -> None:
    """Put the base layers back, the very same objects that `attach_bank` took."""
    for name, module in list(model.named_modules()):
        if isinstance(module, REPLACING):
            model.set_submodule(name, module.base)


def block_of(module: str, blocks: str) -> int | None:
    """Index of the decoder block that a module path lies in; None for one outside all blocks."""
    match = re.match(rf"{re.escape(blocks)}\.(\d+)\.", module)
    return int(match.group(1)) if match else None


def _layer(model: nn.Module, name: str, bank: ExpertBank) -> nn.Module:
    """What a bank layer is put around; a weight of fused experts as a layer of its own."""
    parent, _, own = name.rpartition(".")
    try:
        holder = model.get_submodule(parent)
        fused = fused_shapes(holder)
        layer = FusedWeight(holder, own) if own in fused else model.get_submodule(name)
    except AttributeError:
        raise BaseMismatchError(
            f"Bank '{bank.name}' was made for {bank.base.id}, and this base model has no layer "
            f"{name}; load the bank with its own base model."
        ) from None
    if isinstance(holder, FusedExperts) or isinstance(layer, BankLayer):
        raise BaseModelError("This base model has a bank attached already; detach that one first.")
    expected = next(e.adapter.factors[name] for e in bank.experts if name in e.adapter.factors)
    came = fused.get(own) or linear_shape(layer) or ()
    if came != expected.shape:
        raise BaseMismatchError(
            f"Bank '{bank.name}' was made for {bank.base.id}, whose {name} is "
            f"{_shown(expected.shape)}; this base model's is {_shown(came)}."
        )
    return layer


def _shown(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "no linear layer"


def _place(linear: nn.Module, dtype: torch.dtype | None) -> _Place:
    weight = linear.weight if isinstance(linear, FusedWeight) else next(linear.parameters())
    return _Place(weight.device, dtype or weight.dtype)


def _moved(factors: LoraFactors | None, place: _Place) -> LoraFactors | None:
    return factors and replace(factors, a=factors.a.to(*place), b=factors.b.to(*place))


def _shared_layout(
    known: list[tuple[_Place, RankLayout]], layout: RankLayout, place: _Place
) -> RankLayout:
    for where, one in known:
        if where == place and one.looks_like(layout):
            return one
    known.append((place, layout.to(*place)))
    return layout


def _readers_of_one_input(
    linears: Mapping[str, nn.Module], places: Mapping[str, _Place]
) -> Iterable[list[str]]:
    """The layers, those together that read the same tensor and live in the same place."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, linear in linears.items():
        parent, _, own = name.rpartition(".")
        d_in = (linear_shape(linear) or (0, 0))[1]
        alike = next((names for names in _READ_ALIKE if own in names), own)
        groups.setdefault((parent, alike, places[name], d_in), []).append(name)
    return groups.values()
