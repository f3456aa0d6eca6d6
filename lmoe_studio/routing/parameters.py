"""The parameters of a router: those that were saved, or new ones, the same each time."""

import torch
from torch import Tensor, nn

from lmoe_studio.routing.router import RouterSpec


class Parameters:
    """Makes the parameters of one router by their saved names.

    New ones are drawn by a generator of their own, so that no run hangs on what was drawn before.
    """

    def __init__(self, spec: RouterSpec) -> None:
        self._state = spec.state
        self._generator = torch.Generator().manual_seed(0)

    def full(self, name: str, shape: tuple[int, ...], value: float = 0.0) -> nn.Parameter:
        """A new one has one value throughout."""
        return self._saved(name, torch.full(shape, value))

    def uniform(self, name: str, shape: tuple[int, ...], low: float, high: float) -> nn.Parameter:
        """A new one is drawn evenly between two numbers."""
        drawn = torch.rand(shape, generator=self._generator)
        return self._saved(name, low + (high - low) * drawn)

    def linear(self, name: str, shape: tuple[int, int]) -> nn.Parameter:
        """A new one begins as the weight of `nn.Linear` does: evenly up to `1 / sqrt(d_in)`."""
        bound = shape[1] ** -0.5
        return self.uniform(name, shape, -bound, bound)

    def _saved(self, name: str, new: Tensor) -> nn.Parameter:
        return nn.Parameter(self._state.get(name, new).float().clone())
