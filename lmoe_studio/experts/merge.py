"""Merge a blend: fixed routing weights become an ordinary LoRA, or part of the base's weights.

The update of a linear layer under weights w is `Σ_i w_i s_i B_i A_i` (composition `output`), which
is the LoRA with all factors side by side: exact, of rank `Σ r_i`. A smaller rank comes from the
singular value decomposition of that product, computed from the factors: with `B = Q_b R_b` and
`Aᵀ = Q_a R_a` the singular values of `B A` are those of the small `R_b R_aᵀ`. Composition `factor`
merges into its own averaged factors. Nothing here forms an update of the layer's full size.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import torch
from torch import Tensor, nn

from lmoe_studio.architecture import fused_shapes, weight_is_transposed
from lmoe_studio.arguments import whole_number
from lmoe_studio.errors import BankError, ConfigError, StorageError, kind_of
from lmoe_studio.experts.adapter import write_adapter
from lmoe_studio.experts.adapter_config import MAX_RANK
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors
from lmoe_studio.whole import require_free, whole_folder

Blend = Mapping[str, float]
"""Weight by expert; those not named have 0."""
_BLOCK = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Merged:
    """A blend as one adapter."""

    adapter: LoraAdapter
    errors: dict[str, float]
    """By module: `‖ΔW - merged‖ / ‖ΔW‖` in the Frobenius norm; 0 where the merge is exact."""

    @property
    def rank(self) -> int:
        """The largest of its modules."""
        return max(factors.rank for factors in self.adapter.factors.values())

    @property
    def largest_error(self) -> float:
        return max(self.errors.values())


def merge_blend(
    bank: ExpertBank, blend: Blend | Sequence[Blend], *, out: Path | str, rank: int | None = None
) -> Merged:
    """Write a blend of a bank's experts as a PEFT LoRA folder.

    Args:
        bank: the experts.
        blend: weights for all layers, or one blend for each decoder block.
        out: the folder; must not exist.
        rank: the most that a module may have; None keeps the merge exact.

    Raises:
        BankError: an expert is not in the bank.
        ConfigError: a weight is not finite, all are zero, or the rank is too small.
        StorageError: the folder exists or cannot be written.
    """
    out = Path(out)
    require_free(out)
    merged = merge_experts(bank, blend, rank=rank)
    try:
        with whole_folder(out) as staged:
            write_adapter(merged.adapter, staged, base=bank.base.id)
            (staged / "README.md").write_text(_card(bank, blend, merged), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror or error}.") from None
    return merged


def merge_experts(
    bank: ExpertBank, blend: Blend | Sequence[Blend], *, rank: int | None = None
) -> Merged:
    """The adapter that does what a blend does; arguments and mistakes as for `merge_blend`."""
    if rank is not None:
        rank = whole_number(rank, "The rank of a merge", least=1, most=MAX_RANK)
    blends = [blend] if isinstance(blend, Mapping) else list(blend)
    for one in blends:
        _check(bank, one)
    if not any(any(one.values()) for one in blends):
        raise ConfigError("All weights of the blend are zero; there is nothing to merge.")
    factors, errors = {}, {}
    for name in bank.modules:
        weights = blends[0] if isinstance(blend, Mapping) else blends[_block(name)]
        exact = averaged(bank, name, weights)
        if exact is not None:
            factors[name], errors[name] = _reduce(exact, rank)
    return Merged(LoraAdapter(factors, bank.base.id), errors)


@torch.no_grad()
def add_to_base(model: nn.Module, adapter: LoraAdapter) -> None:
    """Add an adapter's updates to the weights of a plain model, in place."""
    for name, factors in adapter.factors.items():
        parent, _, own = name.rpartition(".")
        module = model.get_submodule(parent)
        if own not in fused_shapes(module):
            module, own = model.get_submodule(name), "weight"
        weight = module.get_parameter(own)
        # On the CPU, as not every device has float64.
        update = factors.b.cpu().double() @ factors.a.cpu().double() * factors.scale
        update = update.mT if weight_is_transposed(module) else update
        weight.copy_((weight.cpu().double() + update).to(weight.dtype))


def averaged(bank: ExpertBank, name: str, weights: Blend) -> LoraFactors | None:
    """The blend of one module in float64 and unit scale; None where no expert takes part."""
    parts = [
        (weights[expert.name], expert.adapter.factors[name])
        for expert in bank.experts
        if weights.get(expert.name) and name in expert.adapter.factors
    ]
    if not parts:
        return None
    if bank.composition == "factor":
        a = torch.stack([w * f.a.double() for w, f in parts]).sum(dim=0)
        b = torch.stack([w * f.scale * f.b.double() for w, f in parts]).sum(dim=0)
        return LoraFactors(a, b, 1.0)
    shares = [w * f.scale for w, f in parts]
    a = torch.cat(
        [math.sqrt(abs(s)) * f.a.double() for s, (_, f) in zip(shares, parts, strict=True)],
        dim=-2,
    )
    b = torch.cat(
        [
            math.copysign(math.sqrt(abs(s)), s) * f.b.double()
            for s, (_, f) in zip(shares, parts, strict=True)
        ],
        dim=-1,
    )
    return LoraFactors(a, b, 1.0)


def _reduce(factors: LoraFactors, rank: int | None) -> tuple[LoraFactors, float]:
    """The nearest factors within the rank, in float32, and the relative error."""
    most = min(factors.d_in, factors.d_out, MAX_RANK)
    wanted = min(rank or factors.rank, most)
    if factors.rank <= wanted:
        return LoraFactors(factors.a.float(), factors.b.float(), 1.0), 0.0
    q_b, r_b = torch.linalg.qr(factors.b)
    q_a, r_a = torch.linalg.qr(factors.a.mT)
    left, values, right = torch.linalg.svd(r_b @ r_a.mT, full_matrices=False)
    root = values[..., None, :wanted].sqrt()
    b = q_b @ left[..., :wanted] * root
    a = root.mT * (right[..., :wanted, :] @ q_a.mT)
    return LoraFactors(a.float(), b.float(), 1.0), _share(values[..., wanted:], values)


def _share(part: Tensor, whole: Tensor) -> float:
    return float(part.norm() / whole.norm()) if whole.norm() > 0 else 0.0


def _check(bank: ExpertBank, blend: Blend) -> None:
    for name, weight in blend.items():
        bank.expert_index(name)
        if isinstance(weight, bool) or not isinstance(weight, Real):
            raise ConfigError(f"The weight of '{name}' is {kind_of(weight)}; expected a number.")
        if not abs(weight) <= 100:  # true of NaN too
            came = f"{weight:g}" if not abs(weight) > 1e300 else "too large"
            raise ConfigError(f"The weight of '{name}' is {came}; expected a number up to 100.")


def _block(module: str) -> int:
    match = _BLOCK.search(module)
    if match is None:
        raise BankError(
            f"{module} lies in no block, so the blend of no layer is its own; merge with one blend "
            "for all layers."
        )
    return int(match.group(1))


def _card(bank: ExpertBank, blend: Blend | Sequence[Blend], merged: Merged) -> str:
    blends = [blend] if isinstance(blend, Mapping) else blend
    rows = "\n".join(
        f"- {'all layers' if isinstance(blend, Mapping) else f'layer {layer}'}: "
        + ", ".join(f"{name} {weight:g}" for name, weight in one.items() if weight)
        for layer, one in enumerate(blends)
    )
    return (
        f"# A blend of the bank {bank.name}\n\nAn ordinary PEFT LoRA for {bank.base.id}, merged from "
        f"its experts by L-MoE Studio; rank up to {merged.rank}, largest relative error of a module "
        f"{merged.largest_error:.2g}.\n\n{rows}\n"
    )
