"""Another CPU's rounding, on this one: `make test-release` must be green with it too.

Every linear layer's result is moved by a few units in the last place, as another order of its sums
would move it. The move depends on the values alone, so what is repeated is repeated bit for bit, while two
ways to the same number come out apart.
"""

import torch
from torch.nn import functional

_SINGLE = torch.float32
_UNITS = 8  # of float32's last place; sums of the tiny models' 48 terms differ by about that

_linear = functional.linear


def _moved(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    out = _linear(x, weight, bias)
    if out.dtype != _SINGLE or out.device.type != "cpu":
        return out
    with torch.no_grad():
        bits = out.contiguous().view(torch.int32).to(torch.int64)
        drawn = ((bits * 2654435761) >> 13 & 0xFFFF).to(_SINGLE) / 0xFFFF - 0.5
        size = out.square().mean(-1, keepdim=True).sqrt()
        move = drawn * size * _UNITS * torch.finfo(_SINGLE).eps
    return out + move


def pytest_configure() -> None:
    functional.linear = _moved
