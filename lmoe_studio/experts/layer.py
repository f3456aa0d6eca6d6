"""Bank layers: a layer of the base model with the LoRA of every expert beside it.

The experts lie side by side along the rank axis, so that a layer costs what one LoRA of the
summed rank costs: no loop over experts, no tensor with an expert axis as wide as the output.
Layers that read the same tensor (q, k and v; gate and up) also share one product with it:
`SharedInput`. Where the routing weights come from is not known here: the layer asks
`current.mixing`.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lmoe_studio.config import Composition
from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.layout import RankLayout, RankWeights
from lmoe_studio.experts.lora import LoraFactors


@runtime_checkable
class Source(Protocol):
    """The `lora_a` of the bank layers that read one tensor; see `SharedInput`."""

    def project(self, x: Float[Tensor, "*rows d_in"]) -> tuple[Float[Tensor, "row rank"], ...]:
        """`A x` for each layer."""
        ...

    def mix(
        self, x: Float[Tensor, "*rows d_in"], expanded: Callable[[RankLayout], RankWeights]
    ) -> tuple[Float[Tensor, "row rank"], ...]:
        """What each layer's `lora_b` is to be applied to."""
        ...


@runtime_checkable
class Reader(Protocol):
    """A bank layer as a pass knows it, in which it reads a tensor."""

    name: str
    layout: RankLayout
    place: int
    """Among the layers of its source."""

    @property
    def source(self) -> Source: ...

    def mix(
        self,
        x: Float[Tensor, "*rows d_in"],
        weights: Float[Tensor, "row expert"],
        composition: Composition,
    ) -> Float[Tensor, "row rank"]:
        """What `lora_b` would be applied to under these weights and this composition."""
        ...

    def update_norms(self, mixed: Float[Tensor, "row rank"]) -> Float[Tensor, "row expert"]:
        """Squared norm of each expert's share of the update."""
        ...

    def update_norm(self, mixed: Float[Tensor, "row rank"]) -> float:
        """Norm of the update over all rows."""
        ...


class Mixing(Protocol):
    """What a bank layer asks of the routed forward pass around it."""

    def mixed(self, layer: Reader, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "row rank"]:
        """What `lora_b` is to be applied to, all rows of `x` one after the other."""
        ...

    def weights(self, name: str, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "row expert"]:
        """The routing weights in force at the layer of this name that reads `x`, one row for each of its."""
        ...

    def fresh(self) -> "Mixing":
        """The same weights for a recomputation, which must repeat every step."""
        ...


class CurrentMixing(threading.local):
    """The mixing in force in this thread; None outside a routed forward pass."""

    mixing: Mixing | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """A copy of a model is in the middle of nothing."""
        return type(self), ()


class SharedInput(nn.Module):
    """The `lora_a` of the bank layers that read one tensor, stacked: one product serves them all."""

    def __init__(
        self,
        factors: Sequence[Sequence[LoraFactors | None]],
        layouts: Sequence[RankLayout],
        composition: Composition,
    ) -> None:
        """Stack the factors of each layer, one entry an expert; `layouts` are the layers'."""
        super().__init__()
        self.lora_a = nn.Parameter(
            torch.cat([one.a for layer in factors for one in layer if one], dim=-2)
        )
        self.composition: Composition = composition
        self.layouts = tuple(layouts)  # a tuple: the layers have them registered
        self.ranks = [layout.total for layout in layouts]
        self.is_even = all(layout is layouts[0] for layout in layouts)

    def project(self, x: Float[Tensor, "*batch d_in"]) -> tuple[Float[Tensor, "token rank"], ...]:
        """`A x` for each layer, all rows of a batch one after the other."""
        return self._product(x).flatten(0, -2).split(self.ranks, dim=-1)

    def mix(
        self, x: Float[Tensor, "*batch d_in"], expanded: Callable[[RankLayout], RankWeights]
    ) -> tuple[Float[Tensor, "token rank"], ...]:
        """What each layer's `lora_b` is to be applied to.

        Args:
            x: what the layers read.
            expanded: the weights in force, for each layout.
        """
        first = self.layouts[0]
        if len(self.layouts) == 1:
            return (first.mix(self._product(x).flatten(0, -2), expanded(first)),)
        if not self.is_even:
            parts = zip(self.project(x), self.layouts, strict=True)
            return tuple(layout.mix(z, expanded(layout)) for z, layout in parts)
        z = self._product(x).view(-1, len(self.layouts), self.ranks[0])
        scaled, plain = expanded(first)
        alike = RankWeights(scaled.unsqueeze(1), None if plain is None else plain.unsqueeze(1))
        return first.mix(z, alike).unbind(1)

    def _product(self, x: Tensor) -> Tensor:
        lora_a = self.lora_a
        return F.linear(x if x.dtype == lora_a.dtype else x.to(lora_a.dtype), lora_a)


class BankLayer(nn.Module):
    """A place of the base model with what the experts do there, one beside the other.

    Composition `output` averages the experts' updates; `factor` averages their factors,
    `(Σ_i w_i s_i B_i)(Σ_j w_j A_j) x`, re-associated so that no weight matrix is built per token.
    """

    def __init__(
        self,
        base: nn.Module,
        factors: Sequence[LoraFactors | None],
        *,
        name: str,
        layout: RankLayout,
        current: CurrentMixing,
    ) -> None:
        """Stack the experts' `lora_b` beside `base`; `share` brings their `lora_a`.

        Args:
            base: the base model's own layer; only ever called, so a quantised one will do.
            factors: one entry an expert; None where the expert has no update here.
            name: path of the layer in the base model.
            layout: of the factors.
            current: where the layer finds the routing weights of the running forward pass.
        """
        super().__init__()
        self.base = base
        self.name = name
        self.layout = layout
        self.lora_b = nn.Parameter(torch.cat([factor.b for factor in factors if factor], dim=-1))
        self._current = current

    def share(self, source: SharedInput, place: int) -> None:
        """Take this place among the layers of a shared input.

        Only the first of them has it as a submodule: its `lora_a` is one parameter, not several.
        """
        self._source = (source,)
        self.place = place
        if place == 0:
            self.shared = source

    @property
    def source(self) -> SharedInput:
        """Where `lora_a` is."""
        return self._source[0]

    @property
    def lora_a(self) -> Float[Tensor, "*fused rank d_in"]:
        """This layer's rows of the stacked parameter."""
        return self.source.lora_a.split(self.source.ranks, dim=-2)[self.place]

    def in_pass(self, *args: Any) -> Reader:
        """The layer as it is in the pass in which it is called with these arguments."""
        raise NotImplementedError

    def routing_weights(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "row expert"] | None:
        """The weights in force in this thread; None where the base layer is alone."""
        mixing = self._current.mixing
        return mixing.weights(self.name, x) if mixing else None

    def split(self) -> list[LoraFactors | None]:
        """The experts' factors again, in order, as views of the stacked parameters."""
        layout = self.layout
        parts = zip(
            self.lora_a.detach().split(layout.ranks, -2),
            self.lora_b.detach().split(layout.ranks, -1),
            layout.scales,
            strict=True,
        )
        return [LoraFactors(a, b, scale) if a.shape[-2] else None for a, b, scale in parts]


class LoRABankLinear(BankLayer):
    """`y = W0 x + Σ_i w_i s_i B_i A_i x`, or the same with averaged factors."""

    def __getattr__(self, name: str) -> Any:
        """What some models read of a linear layer, such as the type of its weight, is the base's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or name == "base":
                raise
            return getattr(self.base, name)

    def forward(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        y = self.base(x)
        mixing = self._current.mixing
        return y if mixing is None else add_product(y, mixing.mixed(self, x), self.lora_b)

    def in_pass(self, *_: Any) -> Reader:
        return self

    def mix(
        self,
        x: Float[Tensor, "*rows d_in"],
        weights: Float[Tensor, "row expert"],
        composition: Composition,
    ) -> Float[Tensor, "row rank"]:
        """What `lora_b` would be applied to under these weights and this composition."""
        z = self.source.project(x)[self.place]
        return self.layout.mix(z, self.layout.expand(weights, composition))

    def update_norms(self, mixed: Float[Tensor, "row rank"]) -> Float[Tensor, "row expert"]:
        """Squared norm of each expert's share of the update, `‖B_i mixed_i‖²`, in float32."""
        return squared_shares(self.lora_b, self.layout, mixed, torch.matmul)

    def update_norm(self, mixed: Float[Tensor, "row rank"]) -> float:
        """`‖B mixed‖` over all rows."""
        return norm_of_product(self.lora_b, mixed, torch.matmul)


def squared_shares(
    lora_b: Float[Tensor, "*fused d_out rank"],
    layout: RankLayout,
    mixed: Float[Tensor, "row rank"],
    product: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "row expert"]:
    """`‖B_i mixed_i‖²` of each expert, in float32.

    Uses `‖B v‖² = vᵀ (BᵀB) v`, so that no `[row, expert, d_out]` tensor is built.

    Args:
        lora_b: the experts', side by side.
        layout: which rank is whose.
        mixed: what it is applied to.
        product: of rows with their matrix.
    """
    b, owner = lora_b.detach().float(), layout.owner.float()
    gram = (b.mT @ b) * (owner @ owner.T)
    mixed = mixed.detach().float()
    return ((product(mixed, gram) * mixed) @ owner).clamp_min_(0)


def norm_of_product(
    lora_b: Float[Tensor, "*fused d_out rank"],
    mixed: Float[Tensor, "row rank"],
    product: Callable[[Tensor, Tensor], Tensor],
) -> float:
    """`‖B mixed‖` over all rows, through BᵀB; on the CPU, as not every device has float64."""
    b, mixed = lora_b.detach().cpu().double(), mixed.detach().cpu().double()
    return float((product(mixed, b.mT @ b) * mixed).sum().clamp_min(0).sqrt())


def check_composition(
    name: str, factors: Sequence[LoraFactors | None], composition: Composition
) -> None:
    """Raise AdapterError for composition `factor` and experts of different ranks."""
    ranks = sorted({factor.rank for factor in factors if factor})
    if composition == "factor" and len(ranks) > 1:
        raise AdapterError(
            f"Composition 'factor' averages the factors and so needs experts of one rank, but "
            f"{name} has ranks {', '.join(map(str, ranks))}; use composition 'output'."
        )


def add_product(
    y: Float[Tensor, "*rows d_out"],
    mixed: Float[Tensor, "row rank"],
    lora_b: Float[Tensor, "d_out rank"],
) -> Float[Tensor, "*rows d_out"]:
    """`y + B mixed` in one operation; without gradients into `y` itself, which is ours alone."""
    if not (y.dtype == mixed.dtype == lora_b.dtype and y.is_contiguous()):
        return y + torch.mm(mixed, lora_b.t()).to(y.dtype).view_as(y)
    flat = y.view(-1, y.shape[-1])
    if torch.is_grad_enabled():
        return torch.addmm(flat, mixed, lora_b.t()).view_as(y)
    flat.addmm_(mixed, lora_b.t())
    return y
