"""Fold a fixed blend into the base model's weights for a while: base speed, exactly reversible.

The folded linear layers stand in for the bank layers; the base model's own weights are never
written to, so that unfolding puts back what was there, whatever happened meanwhile.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lmoe_studio.architecture import weight_is_transposed
from lmoe_studio.errors import PlanError
from lmoe_studio.experts.fused import FusedWeight
from lmoe_studio.experts.layer import BankLayer
from lmoe_studio.experts.lora import LoraFactors
from lmoe_studio.experts.merge import averaged
from lmoe_studio.mixture.folded import FoldedBlend
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.quantisation import is_quantised
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.routing.static import static_blends


@contextmanager
def folded(model: MixtureModel, plan: RoutingPlan, thread: int | None = None) -> Iterator[None]:
    """Run the model with a plan that fixes all weights folded into the base's weights.

    Holds a second copy of the folded layers' weights meanwhile.

    Args:
        model: the routed model.
        plan: which blend.
        thread: the only one that means to run on it; None for all.

    Raises:
        PlanError: a blend is folded already, the plan does not fit the bank or leaves weights to
            the router, or the base's weights are quantised. Nothing is changed.
    """
    if model.folded is not None:
        raise PlanError("A blend is folded into the weights already; unfold that one first.")
    blends = static_blends(
        plan,
        experts=model.bank.expert_names,
        num_layers=model.num_layers,
        why="folded weights are the same for all tokens",
    )
    stand_ins = {
        name: _stand_in(layer, averaged(model.bank, name, blends[model.layer_of(name)]))
        for name, layer in model.bank_layers.items()
    }
    rows = [[blends[site.layer][name] for name in model.bank.expert_names] for site in model.sites]
    device = next(model.base.parameters()).device
    try:
        for name, linear in stand_ins.items():
            model.base.set_submodule(name, linear)
        model.folded = FoldedBlend(plan, torch.tensor(rows, device=device), thread)
        yield
    finally:
        model.folded = None
        for name, layer in model.bank_layers.items():
            model.base.set_submodule(name, layer)


@torch.no_grad()
def _stand_in(layer: BankLayer, update: LoraFactors | None) -> nn.Module:
    """The base layer itself, or one like it with other weights."""
    linear = layer.base
    if update is None:
        return linear
    if is_quantised(linear):
        raise PlanError(
            f"{layer.name} of this base model is quantised, and a blend can be folded into "
            "full-precision weights only; load the base without `quantize`, or run the plan live."
        )
    # accelerate's hook would go on running the layer as it was
    if any(hasattr(one, "_hf_hook") for one in (linear, getattr(linear, "experts", None))):
        raise PlanError(
            f"{layer.name} of this base model is moved about by accelerate (device_map), and a blend "
            "can be folded only where the weights stay; load the base onto one device, or run the "
            "plan live."
        )
    weight: Tensor = linear.weight  # pyright: ignore[reportAssignmentType]
    added = (update.b @ update.a).to(torch.float32).to(weight.device)
    added = added.mT if weight_is_transposed(linear) else added
    folded = nn.Parameter((weight.float() + added).to(weight.dtype), requires_grad=False)
    if isinstance(linear, FusedWeight):
        return FusedWeight(linear.experts, linear.parameter, folded)
    stand_in = copy.copy(linear)
    stand_in._parameters = dict(linear._parameters)
    stand_in.weight = folded
    return stand_in
