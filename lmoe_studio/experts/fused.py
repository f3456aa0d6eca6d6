"""Fused experts: one module of the base model that holds the weights of all experts of its own mixture.

The base sends each token to a few of its experts ("slots"), whose weights `[fused, d_out, d_in]` an
adapter changes by one LoRA each: PEFT's `target_parameters`. In the place of the module stands
`FusedExperts`, which does what transformers' own forward of such modules does, so that what goes through
each weight can be mixed by the routing weights of its token. Its rows are `[token, slot, d]`.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lmoe_studio.architecture import fused_shapes, weight_is_transposed
from lmoe_studio.config import Composition
from lmoe_studio.experts.layer import (
    BankLayer,
    CurrentMixing,
    norm_of_product,
    squared_shares,
)
from lmoe_studio.experts.layout import RankLayout, RankWeights


class Groups:
    """Which of several matrices each row is multiplied by, in one pass."""

    def __init__(self, index: Int[Tensor, "token slot"], count: int) -> None:
        """Sort the rows `[token, slot]` by the matrix, of `count`, that each goes to."""
        flat = index.flatten()
        self._order = flat.argsort(stable=True)
        self._back = torch.empty_like(self._order)
        self._back[self._order] = torch.arange(len(flat), device=flat.device)
        self._sizes = torch.bincount(flat, minlength=count).tolist()

    def linear(
        self,
        x: Float[Tensor, "row d_in"],
        weight: Float[Tensor, "fused d_out d_in"],
        bias: Float[Tensor, "fused d_out"] | None = None,
    ) -> Float[Tensor, "row d_out"]:
        """Each row times its own matrix."""
        parts = zip(
            x[self._order].split(self._sizes),
            weight.unbind(),  # one step back for all of them, where an index would be one for each
            [None] * len(weight) if bias is None else bias.unbind(),
            strict=True,
        )
        return torch.cat([F.linear(part, w, b) for part, w, b in parts if len(part)])[self._back]


class FusedWeight(nn.Module):
    """One weight of fused experts as a layer of its own; what a bank layer is put around."""

    def __init__(self, experts: nn.Module, name: str, weight: nn.Parameter | None = None) -> None:
        """Take a weight of `experts` by its name, or use this one in its place."""
        super().__init__()
        self._experts = (experts,)  # a tuple, so that nothing is registered twice
        self.parameter = name
        self.is_transposed = weight_is_transposed(experts)
        self.own = weight

    @property
    def experts(self) -> nn.Module:
        """The module of the base model that has the weight."""
        return self._experts[0]

    @property
    def weight(self) -> Tensor:
        """As it lies in the module."""
        return getattr(self.experts, self.parameter) if self.own is None else self.own

    def forward(
        self, x: Float[Tensor, "token slot d_in"], groups: Groups
    ) -> Float[Tensor, "token slot d_out"]:
        experts = self.experts
        bias = getattr(experts, f"{self.parameter}_bias") if experts.has_bias else None
        weight = self.weight.mT if self.is_transposed else self.weight
        return groups.linear(x.flatten(0, 1), weight, bias).unflatten(0, x.shape[:2])


class LoRABankFused(BankLayer):
    """`y = W_e x + Σ_i w_i s_i B_ie A_ie x` for each row, `e` being the base's expert that it goes to.

    `lora_a` is `[fused, rank, d_in]`, `lora_b` `[fused, d_out, rank]`.
    """

    def forward(
        self, x: Float[Tensor, "token slot d_in"], groups: Groups
    ) -> Float[Tensor, "token slot d_out"]:
        y = self.base(x, groups)
        mixing = self._current.mixing
        if mixing is None:
            return y
        mixed = mixing.mixed(self.in_pass(x, groups), x)
        return y + groups.linear(mixed, self.lora_b).to(y.dtype).view_as(y)

    def in_pass(self, *args: Any) -> "_InPass":
        _, groups = args
        return _InPass(self, groups)


class _InPass:
    """A layer of fused experts once it is known which row goes to which of them."""

    place = 0

    def __init__(self, layer: LoRABankFused, groups: Groups) -> None:
        self.name = layer.name
        self.layout = layer.layout
        self.source = _Input(layer, groups)
        self._lora_b = layer.lora_b
        self._product = groups.linear

    def mix(self, x: Tensor, weights: Tensor, composition: Composition) -> Tensor:
        expanded = self.layout.expand(weights, composition)
        return self.source.mix(x, lambda _: expanded)[0]

    def update_norms(self, mixed: Tensor) -> Tensor:
        return squared_shares(self._lora_b, self.layout, mixed, self._product)

    def update_norm(self, mixed: Tensor) -> float:
        return norm_of_product(self._lora_b, mixed, self._product)


class _Input:
    """What such a layer does with what it reads."""

    def __init__(self, layer: LoRABankFused, groups: Groups) -> None:
        self._lora_a = layer.lora_a
        self._layout = layer.layout
        self._groups = groups

    def project(self, x: Tensor) -> tuple[Tensor]:
        return (self._groups.linear(x.flatten(0, 1).to(self._lora_a.dtype), self._lora_a),)

    def mix(self, x: Tensor, expanded: Callable[[RankLayout], RankWeights]) -> tuple[Tensor]:
        return (self._layout.mix(self.project(x)[0], expanded(self._layout)),)


class FusedExperts(nn.Module):
    """Stands in the place of fused experts, each of whose weights is a layer here, mixed or not."""

    def __init__(self, base: nn.Module, current: CurrentMixing) -> None:
        """Around `base`, which does its work itself wherever nothing is mixed."""
        super().__init__()
        self.base = base
        self._current = current
        self._names = tuple(fused_shapes(base))
        for name in self._names:
            setattr(self, name, FusedWeight(base, name))

    def __getattr__(self, name: str) -> Any:
        """What a model reads of its experts is the base's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or name == "base":
                raise
            return getattr(self.base, name)

    def forward(self, *args: Any, **kwargs: Any) -> Float[Tensor, "token d"]:
        layers = [getattr(self, name) for name in self._names]
        if self._current.mixing is None and not any(map(_is_folded, layers)):
            return self.base(*args, **kwargs)
        signature = inspect.signature(type(self.base).forward)
        _, *given = signature.bind(self.base, *args, **kwargs).args
        hidden, index, scores = given
        return self._mixed(layers, hidden, index, scores)

    def _mixed(
        self,
        layers: Sequence[nn.Module],
        hidden: Float[Tensor, "token d"],
        index: Int[Tensor, "token slot"],
        scores: Float[Tensor, "token slot"],
    ) -> Float[Tensor, "token d"]:
        """The forward that `use_experts_implementation` of transformers gives such modules."""
        base: Any = self.base
        count = base.num_experts
        groups = Groups(index.clamp(max=count - 1), count)
        x = hidden.unsqueeze(1).expand(-1, index.shape[1], -1)
        up, down = layers
        inner = up(x, groups).flatten(0, 1)
        inner = base._apply_gate(inner) if base.has_gate else base.act_fn(inner)
        y = down(inner.unflatten(0, index.shape), groups)
        if base.has_post_expert_norm:
            y = base.post_expert_norm(y.flatten(0, 1)).view_as(y)
        scores = scores.masked_fill(index >= count, 0)  # experts that lie on another device
        return (y * scores.unsqueeze(-1)).sum(dim=1).to(hidden.dtype)


def _is_folded(layer: nn.Module) -> bool:
    return isinstance(layer, FusedWeight) and layer.own is not None
