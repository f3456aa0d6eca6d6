"""The layer's number as a router may read it, when one router serves all layers."""

import torch
from jaxtyping import Float
from torch import Tensor


def layer_code(layer: int, like: Tensor, width: int) -> Float[Tensor, " width"]:
    """`[sin(l / 10000^(2j/c)), …; cos(…), …]` for j = 0 … c/2 − 1 (E-WEMoE, arXiv 2410.21804).

    Args:
        layer: l, the decoder block.
        like: gives type and device (the published code works in float32 only).
        width: c, even.
    """
    places = torch.arange(width // 2, dtype=like.dtype, device=like.device)
    angle = layer * 10000 ** (-2 * places / width)
    return torch.cat([angle.sin(), angle.cos()])
