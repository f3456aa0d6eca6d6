"""A few numbers of a model's weights, by which other weights of the same shapes are noticed.

They are kept in bfloat16 and compared with room for its rounding, so that the same model loaded in
another type is the same; layers that are quantised are not compared.
"""

import base64
import binascii

import torch
from torch import Tensor, nn

from lmoe_studio.quantisation import full_shapes, quantised_linears

_PARAMETERS, _EACH = 32, 4
_ROOM = 2**-7, 1e-6  # of a number's size: what rounding to bfloat16 on one side and float16 does


def sample_weights(model: nn.Module) -> str | None:
    """Numbers from parameters all over a model, as text; None where it has none at hand."""
    packed = {f"{path}.weight" for path in quantised_linears(model)}
    names = sorted(full_shapes(model))
    parameters = dict(model.named_parameters())
    chosen = [names[place * len(names) // _PARAMETERS] for place in range(_PARAMETERS)]
    found = [_few(None if name in packed else parameters.get(name)) for name in chosen]
    numbers = torch.cat(found).bfloat16()
    if numbers.isnan().all():
        return None
    return base64.b64encode(numbers.view(torch.uint8).numpy().tobytes()).decode()


def is_sample(text: str) -> bool:
    """Whether a text is one of `sample_weights`."""
    try:
        return len(base64.b64decode(text, validate=True)) == 2 * _PARAMETERS * _EACH
    except (binascii.Error, ValueError):
        return False


def same_weights(one: str | None, other: str | None) -> bool:
    """Whether two samples may be of the same weights; what is not known speaks for it."""
    if one is None or other is None:
        return True
    a, b = _numbers(one), _numbers(other)
    relative, absolute = _ROOM
    apart = (a - b).abs() > relative * torch.maximum(a.abs(), b.abs()) + absolute
    return not bool(apart.any())  # a number that is missing on either side is not apart


def _few(parameter: Tensor | None) -> Tensor:
    """Numbers from all over a parameter, `[_EACH]` in float32; NaN where they are not at hand."""
    if parameter is None or parameter.is_meta or not parameter.is_floating_point():
        return torch.full((_EACH,), torch.nan)
    places = torch.arange(1, _EACH + 1) * parameter.numel() // (_EACH + 1)
    return parameter.detach().flatten()[places.to(parameter.device)].float().cpu()


def _numbers(text: str) -> Tensor:
    raw = bytearray(base64.b64decode(text))
    return torch.frombuffer(raw, dtype=torch.bfloat16).float()
