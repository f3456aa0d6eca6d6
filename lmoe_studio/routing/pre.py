"""Routes known from token ids alone, before the base model runs (Read-ME, arXiv 2410.19123)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

_EPS = 1e-6


def id_states(
    ids: Int[Tensor, "batch seq"],
    positions: Int[Tensor, "batch seq"],
    is_token: Bool[Tensor, "batch seq"],
    parameters: Mapping[str, Tensor],
    *,
    layers: int,
    heads: int,
    theta: float = 10000.0,
    normaliser: float | None = None,
) -> Float[Tensor, "batch seq width"]:
    """States of a small causal transformer over ids, normalised for the output layer.

    The whole text is read each time: the published cache attends to memory that was never written.

    Args:
        ids: of the text from its beginning.
        positions: places in the text.
        is_token: False for padding, which nothing attends to.
        parameters: `embed` `[vocabulary, width]`, `norm_out` `[width]`, and of each layer l
            `l.norm_in`, `l.norm_mid`, and `l.x` `[out, in]` with `l.x_bias` for x in q, k, v, o, up, down.
        layers: how many there are.
        heads: of attention.
        theta: base of the rotary angles.
        normaliser: what attention scores are divided by; None is `sqrt(width / heads)`. The original
            has 1.
    """
    x = parameters["embed"][ids]
    width = x.shape[-1]
    cos, sin = _rotary(positions, width // heads, theta, x)
    order = torch.arange(ids.shape[1], device=ids.device)
    # Each place sees itself, so that padding, of which nobody asks anything, stays finite.
    seen = (order[:, None] >= order) & is_token[:, None, None] | (order[:, None] == order)
    scale = None if normaliser is None else 1 / normaliser
    for layer in range(layers):
        normal = F.rms_norm(x, (width,), parameters[f"{layer}.norm_in"], _EPS)
        q, k, v = (
            _linear(parameters, f"{layer}.{name}", normal)
            .unflatten(-1, (heads, -1))
            .transpose(1, 2)
            for name in "qkv"
        )
        q, k = _turned(q, cos, sin), _turned(k, cos, sin)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
        x = x + _linear(parameters, f"{layer}.o", mixed.transpose(1, 2).flatten(-2))
        normal = F.rms_norm(x, (width,), parameters[f"{layer}.norm_mid"], _EPS)
        inner = F.silu(_linear(parameters, f"{layer}.up", normal))
        x = x + _linear(parameters, f"{layer}.down", inner)
    return F.rms_norm(x, (width,), parameters["norm_out"], _EPS)


def _linear(parameters: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, parameters[name], parameters[f"{name}_bias"])


def _rotary(positions: Tensor, width: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles, `[batch, 1, seq, width]`: the same for both halves."""
    powers = torch.arange(0, width, 2, dtype=like.dtype, device=like.device) / width
    angle = positions[:, None, :, None] / theta**powers
    return torch.cat([angle.cos()] * 2, dim=-1), torch.cat([angle.sin()] * 2, dim=-1)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
