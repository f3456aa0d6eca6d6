"""A routing frame as a matrix: one row a cell, one column an expert. Statistics start from here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Value = Literal["weight", "contribution"]
"""What counts as an expert's part in a cell: its routing weight, or its share of the norms of the
updates that were added (a large weight on a small update does little)."""

_PLACE = ("run", "sequence", "position", "layer", "module")
"""What tells one cell from another, as far as a frame has it."""


class FrameError(ValueError):
    """A frame lacks what a question needs; the message says what."""


@dataclass(frozen=True)
class Cells:
    """The cells of a frame: a position at a layer (at a module, where each has a router)."""

    keys: pd.DataFrame
    """One row a cell, with the columns of the frame that do not differ between its experts."""
    experts: pd.Index
    """In the bank's order."""
    weights: NDArray[np.float64]
    """`[cell, expert]`"""

    def distributions(self) -> NDArray[np.float64]:
        """The weights scaled to sum to 1, negative ones as none; a row of zeros where none is."""
        return as_distributions(self.weights)

    def expert_column(self, codes: NDArray[Any]) -> Any:
        """A categorical column of experts, by their place."""
        return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(self.experts))  # pyright: ignore[reportCallIssue, reportArgumentType]  (pandas-stubs knows lists only)


def select(
    frame: pd.DataFrame,
    *,
    special_tokens: bool = True,
    phase: str | None = None,
    layers: Iterable[int] | None = None,
) -> pd.DataFrame:
    """The rows that a question is about.

    Args:
        frame: a routing frame; needs special, phase, layer only where the option is used.
        special_tokens: False leaves the tokenizer's special tokens out.
        phase: "prompt" or "generated"; None keeps both.
        layers: decoder blocks to keep; None keeps all.
    """
    kept = np.ones(len(frame), dtype=bool)
    if not special_tokens:
        require(frame, "special")
        kept &= ~frame["special"].to_numpy()
    if phase is not None:
        require(frame, "phase")
        kept &= (frame["phase"] == phase).to_numpy()
    if layers is not None:
        require(frame, "layer")
        kept &= frame["layer"].isin(list(layers)).to_numpy()
    return frame.loc[kept].reset_index(drop=True)


def cells_of(frame: pd.DataFrame, *, value: Value = "weight", keep: Iterable[str] = ()) -> Cells:
    """Turn a routing frame, its rows in any order, into cells.

    Args:
        frame: needs expert, `value`, the columns in `keep`, and of run, sequence, position, layer,
            module whatever tells its cells apart.
        value: what to read; contributions are scaled to sum to 1 in each cell.
        keep: further columns that the keys must have.

    Raises:
        FrameError: a column is missing, the frame is empty, or a cell names an expert twice.
    """
    require(frame, "expert", value, *keep)
    if frame.empty:
        raise FrameError("The frame has no rows; trace a text first, or select less narrowly.")
    place = [name for name in _PLACE if name in frame]
    columns = [*place, *(name for name in keep if name not in place)]
    codes, experts = _expert_codes(frame["expert"])
    values = frame[value].to_numpy(np.float64)
    if _is_regular(frame, place, codes, len(experts)):
        keys = frame[columns].iloc[:: len(experts)]
        weights = values.reshape(-1, len(experts))
    else:
        cell = frame.groupby(place, observed=True, sort=False, dropna=False).ngroup().to_numpy()
        first = np.unique(cell, return_index=True)[1]
        if len(np.unique(cell * len(experts) + codes)) < len(cell):
            raise FrameError(
                f"The frame names an expert twice in one cell ({', '.join(place)}); "
                "give every trace a sequence or run of its own."
            )
        keys = frame[columns].iloc[first]
        weights = np.zeros((len(first), len(experts)))
        weights[cell, codes] = values
    if value == "contribution":
        weights = as_distributions(weights)
    return Cells(keys.reset_index(drop=True), experts, weights)


def require(frame: pd.DataFrame, *columns: str) -> None:
    """Refuse a frame that lacks a column, with what to do about it."""
    for name in columns:
        if name not in frame:
            hint = _WHERE_FROM.get(name, "")
            raise FrameError(
                f"The frame has no column '{name}'{hint}; it has {', '.join(map(str, frame))}."
            )


_WHERE_FROM = {
    "label": " (a corpus traced with labels has one)",
    "contribution": " (trace with contributions to get it)",
    "special": " (a routing frame has one)",
}


def as_distributions(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale the last axis to sum to 1, negative values counting as none."""
    kept = np.clip(weights, 0, None)
    total = kept.sum(axis=-1, keepdims=True)
    return np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)


def entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """`-Σ p ln p` over the last axis, in nats."""
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return -(shares * logs).sum(axis=-1)


def top_experts(weights: NDArray[np.float64], k: int) -> NDArray[np.bool_]:
    """Which experts are among the k largest weights of a row, and above 0."""
    order = np.argsort(-weights, axis=-1, kind="stable")[..., :k]
    chosen = np.zeros(weights.shape, dtype=bool)
    np.put_along_axis(chosen, order, values=True, axis=-1)
    return chosen & (weights > 0)


def group(keys: pd.DataFrame, by: Sequence[str]) -> tuple[NDArray[Any], pd.DataFrame]:
    """The group of each row, and one row a group with the columns of `by`, in their order."""
    if not by:
        return np.zeros(len(keys), dtype=np.intp), pd.DataFrame(index=range(1))
    codes = keys.groupby(list(by), observed=True, dropna=False).ngroup().to_numpy()
    first = np.unique(codes, return_index=True)[1]
    return codes, keys[list(by)].iloc[first].reset_index(drop=True)


def sum_by(codes: NDArray[Any], count: int, values: NDArray[Any]) -> NDArray[Any]:
    """Column sums of `values` `[row, column]` for each of `count` groups of rows."""
    columns = [np.bincount(codes, column, minlength=count) for column in values.T]
    return np.stack(columns, axis=1)


def mean_by(codes: NDArray[Any], count: int, values: NDArray[Any]) -> NDArray[np.float64]:
    """Column means of `values` `[row, column]` for each of `count` groups of rows."""
    return sum_by(codes, count, values) / np.bincount(codes, minlength=count)[:, None]


def _expert_codes(column: "pd.Series[Any]") -> tuple[NDArray[Any], pd.Index]:
    """Each row's expert as a number, and the experts that occur, in the order of the categories."""
    category = (
        column if isinstance(column.dtype, pd.CategoricalDtype) else column.astype("category")
    )
    category = category.cat.remove_unused_categories()
    return category.cat.codes.to_numpy().astype(np.intp), category.cat.categories


def _is_regular(frame: pd.DataFrame, place: list[str], codes: NDArray[Any], experts: int) -> bool:
    """Whether each cell's experts follow one another in order, as `routing_frame` writes them."""
    if len(frame) % experts or not (codes.reshape(-1, experts) == np.arange(experts)).all():
        return False
    for name in place:
        column = frame[name]
        values = column.to_numpy() if column.dtype.kind == "i" else pd.factorize(column)[0]
        values = values.reshape(-1, experts)
        if not (values == values[:, :1]).all():
            return False
    return True
