"""The parameters that are trained, taken out of a model and put back, also where processes share it."""

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.mixture.state import whole_tensor


def whole_parameters(model: MixtureModel) -> dict[str, Tensor]:
    """Copies of the parameters with a gradient, by name, on the CPU; parts are put together."""
    return {
        name: whole_tensor(parameter.detach()).to("cpu", copy=True).contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def restore_parameters(model: MixtureModel, tensors: dict[str, Tensor]) -> None:
    """Put such copies back."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        value = tensors[name].to(parameter.device)
        if isinstance(parameter, DTensor):
            value = distribute_tensor(value, parameter.device_mesh, parameter.placements)
        parameter.data.copy_(value)
