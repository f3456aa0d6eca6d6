"""Where do two runs route differently?"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells import Cells, FrameError, Value, cells_of, entropy, group, mean_by

_PLACE = ("sequence", "position", "layer", "module")


def compare_runs(
    one: pd.DataFrame,
    other: pd.DataFrame,
    *,
    by: Sequence[str] = ("layer",),
    aligned: bool = True,
    experts: Mapping[str, str] | None = None,
    value: Value = "weight",
) -> pd.DataFrame:
    """Jensen-Shannon divergence between the routing of two runs, in bits: 0 the same, 1 disjoint.

    `JSD(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2` (Lin 1991). The same texts under two plans, two
    checkpoints or two banks are compared position by position; two different texts only by their
    means, with `aligned=False`.

    Args:
        one: a routing frame; needs sequence, position, layer, expert, `value`, the columns in `by`,
            and token_id or token to check the alignment with.
        other: another.
        by: what to keep apart: ("sequence", "position", "layer") for every token, ("layer",),
            ("label",), ("label", "layer"), () for one number.
        aligned: compare each position with the same position of the other run.
        experts: which expert of `one` each expert of `other` stands for, where names differ;
            `lmoe_studio.experts.geometry.match_experts` finds it by the likeness of the updates.
        value: read routing weights, or shares of the contribution.

    Returns:
        One row a group that both runs have: the columns of `by`; only with `aligned` jsd (mean over
        the group's cells) and moved (mean total variation: how much of the weight goes elsewhere);
        jsd_of_means (of the group's mean distributions), cells (of `one`). A cell without weight
        counts as a choice of its own: the base model.

    Raises:
        FrameError: the runs cannot be aligned, or their experts not matched; it says why.
    """
    keep = [*by, *(("sequence", "position", "layer") if aligned else ())]
    first, second = (
        cells_of(frame, value=value, keep=[*keep, *_token_column(frame, aligned)])
        for frame in (one, other)
    )
    p = _with_base(first.distributions())
    q = _with_base(_matched(second, first.experts, experts))
    if not aligned:
        return _compare_means(first, p, second, q, by)
    order, others = _align(first, second)
    p, q = p[order], q[others]
    keys = first.keys.iloc[order]
    codes, heads = group(keys, by)
    numbers = np.stack([_jsd(p, q), np.abs(p - q).sum(axis=1) / 2], axis=1)
    means = mean_by(codes, len(heads), numbers)
    between = _jsd(mean_by(codes, len(heads), p), mean_by(codes, len(heads), q))
    return heads.assign(
        jsd=means[:, 0],
        moved=means[:, 1],
        jsd_of_means=between,
        cells=np.bincount(codes, minlength=len(heads)),
    )


def _token_column(frame: pd.DataFrame, aligned: bool) -> list[str]:
    if not aligned:
        return []
    for name in ("token_id", "token"):
        if name in frame:
            return [name]
    raise FrameError("Aligned runs are checked by their tokens; keep the column token_id or token.")


def _matched(
    cells: Cells, experts: pd.Index, match: Mapping[str, str] | None
) -> NDArray[np.float64]:
    """The distributions of `cells` with the columns of `experts`."""
    names = [(match or {}).get(name, name) for name in cells.experts]
    unknown = [name for name in names if name not in experts]
    if unknown or len(set(names)) < len(names):
        raise FrameError(
            f"The runs have different experts ({', '.join(map(str, experts))} and "
            f"{', '.join(map(str, cells.experts))}); say with `experts` which stands for which, "
            "for example by match_experts of the two banks."
        )
    shares = cells.distributions()
    matched = np.zeros((len(shares), len(experts)))
    matched[:, experts.get_indexer(pd.Index(names))] = shares
    return matched


def _align(one: Cells, other: Cells) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of both, cell by cell. Raises FrameError with the first difference."""
    place = [name for name in _PLACE if name in one.keys and name in other.keys]
    for cells in (one, other):
        if cells.keys.duplicated(place).any():
            raise FrameError("A frame holds several runs; give compare_runs one run on each side.")
    left = one.keys.assign(_row=np.arange(len(one.keys)))
    right = other.keys.assign(_row=np.arange(len(other.keys)))
    both = left.merge(right, on=place, how="outer", suffixes=("", "_other"), indicator=True)
    lonely = both[both["_merge"] != "both"]
    if len(lonely):
        row = lonely.iloc[0]
        which = "first" if row["_merge"] == "left_only" else "second"
        where = ", ".join(f"{name} {row[name]}" for name in place)
        raise FrameError(
            f"The runs cannot be aligned: only the {which} has {where}. Compare runs over the same "
            "texts and layers, or their means with aligned=False."
        )
    for name in ("token_id", "token"):
        if f"{name}_other" in both:
            differ = both[both[name].astype(object) != both[f"{name}_other"].astype(object)]
            if len(differ):
                row = differ.sort_values(place).iloc[0]
                raise FrameError(
                    f"The runs cannot be aligned: at sequence {row['sequence']}, position "
                    f"{row['position']} one reads {row[name]!r} and the other "
                    f"{row[f'{name}_other']!r}. Compare runs over the same text, or their means "
                    "with aligned=False."
                )
    return both["_row"].to_numpy(np.intp), both["_row_other"].to_numpy(np.intp)


def _compare_means(
    first: Cells,
    p: NDArray[np.float64],
    second: Cells,
    q: NDArray[np.float64],
    by: Sequence[str],
) -> pd.DataFrame:
    codes, heads = group(first.keys, by)
    others, other_heads = group(second.keys, by)
    ours, theirs = mean_by(codes, len(heads), p), mean_by(others, len(other_heads), q)
    left = heads.assign(_one=np.arange(len(heads)), cells=np.bincount(codes))
    right = other_heads.assign(_other=np.arange(len(other_heads)))
    both = left.merge(right, on=list(by)) if by else left.merge(right, how="cross")
    if both.empty:
        raise FrameError(f"The runs have no {' and '.join(by)} in common; compare them by others.")
    between = _jsd(ours[both["_one"].to_numpy()], theirs[both["_other"].to_numpy()])
    return both[list(by)].assign(jsd_of_means=between, cells=both["cells"])


def _with_base(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """One more column: 1 where no expert has weight."""
    return np.hstack([shares, 1 - np.round(shares.sum(axis=1, keepdims=True))])


def _jsd(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    nats = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return np.clip(nats / np.log(2), 0, 1)
