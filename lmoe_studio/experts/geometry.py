"""How large the experts' updates are, and how alike; from the small factors, never forming ΔW.

For ΔW = s·B·A with B = Q_b R_b and Aᵀ = Q_a R_a (QR), the singular values of ΔW are those of
s·R_b·R_aᵀ, and ⟨ΔW_i, ΔW_j⟩ = s_i s_j Σ (B_iᵀ B_j) ∘ (A_i A_jᵀ): matrices of rank × rank.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmoe_studio.errors import BaseMismatchError
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.lora import LoraFactors

_NOTHING = 1e-7  # of the largest singular value: directions below it are rounding


@dataclass(frozen=True, eq=False)
class BankGeometry:
    """Sizes of a bank's updates, and likeness of each pair of experts."""

    experts: pd.DataFrame
    """One row a module and expert: module, layer, target, expert, rank, norm (Frobenius, of ΔW),
    spectral (largest singular value), effective_rank (exp of the entropy of the singular values
    scaled to sum to 1: Roy and Vetterli 2007; 0 where ΔW is 0)."""
    pairs: pd.DataFrame
    """One row a module and pair of experts that both change it: module, layer, target, expert,
    other, inner (⟨ΔW, ΔW'⟩), cosine (inner over both norms), input_angle and output_angle (degrees:
    the smallest principal angle of the spaces they read from and write to), input_overlap and
    output_overlap (mean squared cosine of the principal angles: 0 apart, 1 the same space)."""
    names: tuple[str, ...]

    @property
    def cosines(self) -> pd.DataFrame:
        """Expert × expert: cosine of the updates of all modules taken as one vector."""
        square = np.diag(self.norms.to_numpy() ** 2)
        for (one, other), inner in self.pairs.groupby(["expert", "other"])["inner"].sum().items():  # pyright: ignore[reportGeneralTypeIssues]
            i, j = self.names.index(one), self.names.index(other)
            square[i, j] = square[j, i] = inner
        return pd.DataFrame(_cosines(square), list(self.names), list(self.names))

    @property
    def norms(self) -> "pd.Series[float]":
        """Norm of each expert's updates of all modules."""
        squares = (self.experts["norm"] ** 2).groupby(self.experts["expert"]).sum()
        return squares.reindex(list(self.names)) ** 0.5

    def summary(self) -> dict[str, Any]:
        """Plain values over all modules: norm and mean effective rank by expert, cosine by pair."""
        ranks = self.experts.groupby("expert")["effective_rank"].mean()
        cosines = self.cosines.round(4).astype(object).where(self.cosines.notna(), None)
        return {
            "norm": self.norms.round(4).to_dict(),
            "effective_rank": ranks.reindex(list(self.names)).round(3).to_dict(),
            "cosine": cosines.to_dict(orient="index"),
        }


def bank_geometry(bank: ExpertBank) -> BankGeometry:
    """Measure every module of a bank."""
    sizes, pairs = [], []
    for module in bank.modules:
        place = _place(module)
        parts = [
            (expert.name, _Update.of(expert.adapter.factors[module]))
            for expert in bank.experts
            if module in expert.adapter.factors
        ]
        for index, (name, update) in enumerate(parts):
            sizes.append({**place, "expert": name, **update.sizes()})
            for other, its in parts[index + 1 :]:
                pairs.append({**place, "expert": name, "other": other, **update.compared_to(its)})
    columns = ["module", "layer", "target", "expert", "other", "inner", "cosine",
               "input_angle", "output_angle", "input_overlap", "output_overlap"]  # fmt: skip
    return BankGeometry(
        pd.DataFrame(sizes), pd.DataFrame(pairs, columns=columns), bank.expert_names
    )


def match_experts(one: ExpertBank, other: ExpertBank) -> dict[str, str]:
    """Which expert of `one` each expert of `other` stands for: for `analysis.compare_runs`.

    By name, where the names are the same; else one to one by the cosine of their updates over all
    modules, the most alike first.

    Raises:
        BaseMismatchError: the banks have different bases, or not as many experts.
    """
    if one.base.fingerprint != other.base.fingerprint:
        raise BaseMismatchError(
            f"Banks '{one.name}' and '{other.name}' have different base models, so their experts "
            "cannot be matched."
        )
    if len(one.experts) != len(other.experts):
        raise BaseMismatchError(
            f"Bank '{one.name}' has {len(one.experts)} experts and '{other.name}' has "
            f"{len(other.experts)}; only as many can be matched one to one."
        )
    if set(one.expert_names) == set(other.expert_names):
        return {name: name for name in other.expert_names}
    return dict(_greedy(_cosine_between(one, other), one.expert_names, other.expert_names))


def _greedy(
    cosines: NDArray[Any], names: tuple[str, ...], others: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    left = cosines.copy()
    for _ in names:
        i, j = np.unravel_index(left.argmax(), left.shape)
        yield others[j], names[i]
        left[i], left[:, j] = -np.inf, -np.inf


def _cosine_between(one: ExpertBank, other: ExpertBank) -> NDArray[Any]:
    inner = np.zeros((len(one.experts), len(other.experts)))
    for i, mine in enumerate(one.experts):
        for j, theirs in enumerate(other.experts):
            inner[i, j] = _inner_of_all(mine.adapter.factors, theirs.adapter.factors)
    own = [_inner_of_all(e.adapter.factors, e.adapter.factors) for e in one.experts]
    its = [_inner_of_all(e.adapter.factors, e.adapter.factors) for e in other.experts]
    return inner / np.sqrt(np.outer(own, its)).clip(min=1e-30)


def _inner_of_all(mine: Mapping[str, LoraFactors], theirs: Mapping[str, LoraFactors]) -> float:
    return sum(_inner(mine[name], theirs[name]) for name in mine if name in theirs)


def _inner(one: LoraFactors, other: LoraFactors) -> float:
    left = one.b.double().mT @ other.b.double()
    right = one.a.double() @ other.a.double().mT
    return one.scale * other.scale * float((left * right).sum())


@dataclass(frozen=True, eq=False)
class _Update:
    """One expert's update of one module, with bases of the spaces it reads from and writes to."""

    factors: LoraFactors
    singular: Tensor
    """Descending."""
    input_bases: tuple[Tensor, ...]
    """`[d_in, k]`, orthonormal: one, or one for each of the fused experts."""
    output_bases: tuple[Tensor, ...]
    """`[d_out, k]`, orthonormal."""

    @classmethod
    def of(cls, factors: LoraFactors) -> "_Update":
        """Updates of fused experts are taken as the blocks of one matrix."""
        q_b, r_b = torch.linalg.qr(factors.b.double())
        q_a, r_a = torch.linalg.qr(factors.a.double().mT)
        u, singular, v = torch.linalg.svd(factors.scale * r_b @ r_a.mT, full_matrices=False)
        kept = singular > _NOTHING * singular.max().clamp_min(1e-30)
        ranks = kept.reshape(-1, kept.shape[-1]).sum(dim=1).tolist()
        inputs, outputs = (one.reshape(-1, *one.shape[-2:]) for one in (q_a @ v.mT, q_b @ u))
        return cls(
            factors,
            singular[kept].sort(descending=True).values,
            tuple(basis[:, :rank] for basis, rank in zip(inputs, ranks, strict=True)),
            tuple(basis[:, :rank] for basis, rank in zip(outputs, ranks, strict=True)),
        )

    def sizes(self) -> dict[str, Any]:
        if not len(self.singular):
            return {"rank": self.factors.rank, "norm": 0.0, "spectral": 0.0, "effective_rank": 0.0}
        share = self.singular / self.singular.sum()
        return {
            "rank": self.factors.rank,
            "norm": float(self.singular.norm()),
            "spectral": float(self.singular[0]),
            "effective_rank": float(torch.exp(-(share * share.log()).sum())),
        }

    def compared_to(self, other: "_Update") -> dict[str, float]:
        inner = _inner(self.factors, other.factors)
        norms = float(self.singular.norm() * other.singular.norm())
        result = {"inner": inner, "cosine": inner / norms if norms else np.nan}
        for side in ("input", "output"):
            bases = zip(
                getattr(self, f"{side}_bases"), getattr(other, f"{side}_bases"), strict=True
            )
            cosines = torch.cat([torch.linalg.svdvals(mine.T @ its) for mine, its in bases])
            cosines = cosines.clamp(max=1)
            known = len(cosines) > 0
            least = torch.rad2deg(cosines.max().acos()) if known else np.nan
            result[f"{side}_angle"] = float(least)
            result[f"{side}_overlap"] = float((cosines**2).mean()) if known else np.nan
        return result


def _cosines(square: NDArray[Any]) -> NDArray[Any]:
    norms = np.sqrt(np.diag(square))
    outer = np.outer(norms, norms)
    return np.divide(square, outer, out=np.full_like(square, np.nan), where=outer > 0)


def _place(module: str) -> dict[str, Any]:
    parts = module.split(".")
    layer = next((int(part) for part in parts if part.isdigit()), -1)
    return {"module": module, "layer": layer, "target": parts[-1]}
