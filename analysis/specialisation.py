"""Do experts own labels? Mutual information of label and expert, and who owns which label."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells import (
    FrameError,
    Value,
    as_distributions,
    cells_of,
    entropy,
    group,
    mean_by,
    require,
    sum_by,
)


def specialisation(
    frame: pd.DataFrame, *, permutations: int = 200, seed: int = 0, value: Value = "weight"
) -> pd.DataFrame:
    """How much an expert's share of the routing says about the label, by layer.

    For each layer the joint distribution p(label, expert) is the mean routing weight that the
    sequences of a label give an expert, every sequence counting the same; the result is its
    mutual information `Σ p(l, e) log2(p(l, e) / (p(l) p(e)))`. The baseline is the same number
    with the labels dealt out to the sequences at random: what chance alone would show.

    Args:
        frame: columns `sequence` (and `run`, where there are several), `label`, `layer`, `expert`,
            `value`; a sequence has one label. Sequences without a label are left out.
        permutations: how often to shuffle.
        seed: of the shuffling.
        value: read routing weights, or shares of the contribution.

    Returns:
        One row a layer: `layer`, `information` (bits), `baseline` (mean of the shuffles),
        `baseline_95` (their 95th percentile), `p_value` (share of shuffles at least as high,
        counting the real one), `maximum` (entropy of the labels: the most there can be; with one
        label only, 0).

    Raises:
        FrameError: a column is missing, no sequence has a label, or one has two.
    """
    sequences = _sequences(frame, value)
    rng = np.random.default_rng(seed)
    shuffles = [rng.permutation(sequences.codes) for _ in range(permutations)]
    rows = []
    for index, layer in enumerate(sequences.layers):
        weights = sequences.shares[:, index]
        present = weights.sum(axis=1) > 0
        found = _information(weights[present], sequences.codes[present])
        chance = np.array([_information(weights[present], codes[present]) for codes in shuffles])
        rows.append(
            {
                "layer": layer,
                "information": found,
                "baseline": chance.mean() if permutations else np.nan,
                "baseline_95": np.quantile(chance, 0.95) if permutations else np.nan,
                # Shuffles that deal the same groups out again may differ in the last bit.
                "p_value": (1 + (chance >= found - 1e-12).sum()) / (1 + permutations),
                "maximum": _bits(np.bincount(sequences.codes[present])),
            }
        )
    return pd.DataFrame(rows)


def label_shares(
    frame: pd.DataFrame, *, by: Sequence[str] = (), value: Value = "weight"
) -> pd.DataFrame:
    """Each expert's share of the routing in the texts of each label.

    Args:
        frame: as for `specialisation`.
        by: () for the mean over layers, or ("layer",).
        value: read routing weights, or shares of the contribution.

    Returns:
        One row for each group, label and expert: the columns of `by`, label, expert, share (mean
        over the label's sequences, every one counting the same), excess (share less its mean over
        the labels), sequences (how many the label has).
    """
    if tuple(by) not in ((), ("layer",)):
        raise FrameError(f"label_shares keeps layers apart or nothing, not {', '.join(by)}.")
    sequences = _sequences(frame, value)
    labels, experts = len(sequences.labels), len(sequences.experts)
    shares = sequences.shares if by else sequences.shares.mean(axis=1, keepdims=True)
    means = sequences.label_means(shares)  # [label, layer, expert]
    excess = _excess(means)
    places = means.shape[1]
    table = pd.DataFrame(
        {
            "layer": np.repeat(sequences.layers if by else [0], labels * experts),
            "label": np.tile(np.repeat(sequences.labels, experts), places),
            "expert": pd.Categorical(
                np.tile(sequences.experts, labels * places), categories=sequences.experts
            ),
            "share": means.swapaxes(0, 1).ravel(),
            "excess": excess.swapaxes(0, 1).ravel(),
            "sequences": np.tile(np.repeat(np.bincount(sequences.codes), experts), places),
        }
    )
    return table if by else table.drop(columns="layer")


def label_owners(
    frame: pd.DataFrame, *, permutations: int = 200, seed: int = 0, value: Value = "weight"
) -> pd.DataFrame:
    """Which expert handles which label, and where in the network.

    A label's owner is the expert whose share in the label's texts is furthest above its mean share
    over all labels: an expert that is busy everywhere owns nothing by that.

    Args:
        frame: as for `specialisation`, with at least two labels.
        permutations: how often to deal the labels out at random for the p-value.
        seed: of the shuffling.
        value: read routing weights, or shares of the contribution.

    Returns:
        One row a label: label, expert (its owner), share, excess (both means over layers), layer
        (where its excess is largest), layer_share (its share there), p_value (how often a shuffle
        gives the label any expert with at least this excess, counting the real one), sequences.

    Raises:
        FrameError: fewer than two labels, or as for `specialisation`.
    """
    sequences = _sequences(frame, value)
    if len(sequences.labels) < 2:
        raise FrameError(
            f"Every text has the label '{sequences.labels[0]}'; owners need at least two labels."
        )
    mean = sequences.shares.mean(axis=1, keepdims=True)
    excess = _excess(sequences.label_means(mean))[:, 0]
    owner, rows = excess.argmax(axis=1), np.arange(len(sequences.labels))
    best = excess[rows, owner]
    rng = np.random.default_rng(seed)
    chance = np.array(
        [
            _excess(sequences.label_means(mean, rng.permutation(sequences.codes)))[:, 0].max(axis=1)
            for _ in range(permutations)
        ]
    ).reshape(permutations, len(rows))
    by_layer = sequences.label_means(sequences.shares)
    place = _excess(by_layer)[rows, :, owner].argmax(axis=1)
    return pd.DataFrame(
        {
            "label": sequences.labels,
            "expert": pd.Categorical.from_codes(owner, categories=sequences.experts),  # pyright: ignore[reportArgumentType]  (pandas-stubs knows lists only)
            "share": sequences.label_means(mean)[rows, 0, owner],
            "excess": best,
            "layer": np.asarray(sequences.layers)[place],
            "layer_share": by_layer[rows, place, owner],
            "p_value": (1 + (chance >= best - 1e-12).sum(axis=0)) / (1 + permutations),
            "sequences": np.bincount(sequences.codes),
        }
    )


@dataclass(frozen=True)
class _Sequences:
    """How each labelled sequence was routed in each layer."""

    shares: NDArray[np.float64]
    """`[sequence, layer, expert]`: mean weights, scaled to sum to 1."""
    codes: NDArray[np.intp]
    """`[sequence]`: place of its label in `labels`."""
    labels: list[str]
    layers: list[int]
    experts: pd.Index

    def label_means(
        self, shares: NDArray[np.float64], codes: NDArray[np.intp] | None = None
    ) -> NDArray[np.float64]:
        """Mean of `shares` over the sequences of each label: `[label, layer, expert]`."""
        codes = self.codes if codes is None else codes
        flat = mean_by(codes, len(self.labels), shares.reshape(len(shares), -1))
        return flat.reshape(len(self.labels), *shares.shape[1:])


def _sequences(frame: pd.DataFrame, value: Value) -> _Sequences:
    require(frame, "sequence", "label", "layer", "expert", value)
    frame = frame[frame["label"].notna()]
    if frame.empty:
        raise FrameError("No text has a label; give each text one, for example its skill.")
    cells = cells_of(frame, value=value, keep=("sequence", "label", "layer"))
    owner = [name for name in ("run", "sequence") if name in cells.keys]
    sequence, heads = group(cells.keys, [*owner, "label"])
    if heads.duplicated(owner).any():
        raise FrameError("A sequence has two labels; give each text one label only.")
    codes, labels = pd.factorize(heads["label"], sort=True)
    layer, layers = pd.factorize(cells.keys["layer"], sort=True)
    place = sequence * len(layers) + layer
    sums = sum_by(place, len(heads) * len(layers), np.clip(cells.weights, 0, None))
    shares = as_distributions(sums).reshape(len(heads), len(layers), -1)
    return _Sequences(shares, codes, list(labels), list(layers), cells.experts)


def _excess(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each label's share is above the mean over labels, `[label, layer, expert]`."""
    return means - means.mean(axis=0)


def _information(weights: NDArray[np.float64], codes: NDArray[np.intp]) -> float:
    labels = np.zeros((len(codes), codes.max(initial=0) + 1))
    labels[np.arange(len(codes)), codes] = 1
    joint = labels.T @ weights
    return max(0.0, _bits(joint.sum(1)) + _bits(joint.sum(0)) - _bits(joint.ravel()))


def _bits(amounts: NDArray[np.float64] | NDArray[np.intp]) -> float:
    total = amounts.sum()
    return float(entropy(amounts / total)) / np.log(2) if total else 0.0
