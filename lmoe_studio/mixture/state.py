"""A bank, and a base model's own tensors, back from a model: for files."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from lmoe_studio.experts.attach import REPLACING
from lmoe_studio.experts.bank import Expert, ExpertBank
from lmoe_studio.experts.layer import BankLayer
from lmoe_studio.experts.lora import LoraAdapter
from lmoe_studio.routing.router import Router


def bank_of(
    bank: ExpertBank, layers: Mapping[str, BankLayer], routers: Mapping[str, Router]
) -> ExpertBank:
    """A bank with the parameters that its layers and routers have now, on the CPU in float32."""
    factors: list[dict[str, Any]] = [{} for _ in bank.experts]
    for name, layer in layers.items():
        for index, factor in enumerate(layer.split()):
            if factor:
                factors[index][name] = replace(factor, a=_own_copy(factor.a), b=_own_copy(factor.b))
    experts = tuple(
        Expert(old.name, LoraAdapter(found, old.adapter.base), old.description, old.tags)
        for old, found in zip(bank.experts, factors, strict=True)
    )
    state = {
        f"{key}.{name}": _own_copy(tensor.detach())
        for key, router in routers.items()
        for name, tensor in router.saved().items()
    }
    return replace(bank, experts=experts, router_state=state or bank.router_state)


def base_state(base: nn.Module) -> dict[str, Tensor]:
    """A base model's own parameters and buffers under its own names, with a bank attached to it."""
    replaced = {name for name, module in base.named_modules() if isinstance(module, REPLACING)}
    own = {}
    for name, tensor in base.state_dict().items():
        module, _, rest = name.rpartition(".base.")
        if module in replaced:
            own[f"{module}.{rest}"] = tensor
        elif not name.endswith((".lora_a", ".lora_b")):
            own[name] = tensor
    return own


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor that lies in parts on several devices (FSDP), put together on each of them."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather else tensor


def _own_copy(tensor: Tensor) -> Tensor:
    return whole_tensor(tensor).float().cpu().clone()
