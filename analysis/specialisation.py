"""Do experts own labels? Mutual information of label and expert, and who owns which label."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

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
    require,
    sum_by,
)
from analysis.chance import against_chance


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
        seed: of the shuffling, together with the routing itself.
        value: read routing weights, or shares of the contribution.

    Returns:
        One row a layer: `layer`, `information` (bits), `baseline` (mean of the shuffles),
        `baseline_95` (95 % of the shuffles are below it in every layer), `p_value` (how often a
        shuffle is as far above its baseline in any layer, counting the real one: corrected for
        the number of layers, see `analysis.chance`), `maximum` (entropy of the labels: the most
        there can be; with one label only, 0).

    Raises:
        FrameError: a column is missing, no sequence has a label, or one has two.
    """
    sequences = _sequences(frame, value)
    found = _information(sequences.label_sums(sequences.shares))
    chance = against_chance(
        found, sequences.shuffled(_information, sequences.shares, permutations, seed)
    )
    present = sequences.shares.sum(axis=-1) > 0
    return pd.DataFrame(
        {
            "layer": sequences.layers,
            "information": found,
            "baseline": chance.mean,
            "baseline_95": chance.ceiling,
            "p_value": chance.p_values,
            "maximum": [_bits(np.bincount(sequences.codes[here])) for here in present.T],
        }
    )


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
    """Which expert is for which label, and where in the network.

    A label's owner is the expert whose share in the label's texts is furthest above its mean share
    over all labels: an expert that is busy everywhere owns nothing by that. Another expert may
    have the larger share, so that one is named beside it.

    Args:
        frame: as for `specialisation`, with at least two labels.
        permutations: how often to deal the labels out at random for the p-value.
        seed: of the shuffling, together with the routing itself.
        value: read routing weights, or shares of the contribution.

    Returns:
        One row a label: label, expert (its owner), share, excess (both means over layers), layer
        (where its excess is largest), layer_share (its share there), p_value (how often a shuffle
        gives any label any expert so far above its mean, counting the real one: corrected for the
        number of labels and experts, see `analysis.chance`), top_expert (which has the largest
        share in the label's texts), top_share, sequences.

    Raises:
        FrameError: fewer than two labels, or as for `specialisation`.
    """
    sequences = _sequences(frame, value)
    if len(sequences.labels) < 2:
        raise FrameError(
            f"Every text has the label '{sequences.labels[0]}'; owners need at least two labels."
        )
    mean = sequences.shares.mean(axis=1, keepdims=True)
    counts = np.bincount(sequences.codes)[:, None, None]

    def excess_of(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return _excess(sums / counts)[:, 0]

    shares = sequences.label_means(mean)[:, 0]  # [label, expert]
    excess = _excess(shares)
    chance = against_chance(excess, sequences.shuffled(excess_of, mean, permutations, seed))
    owner, top = excess.argmax(axis=1), shares.argmax(axis=1)
    rows = np.arange(len(sequences.labels))
    by_layer = sequences.label_means(sequences.shares)
    place = _excess(by_layer)[rows, :, owner].argmax(axis=1)
    return pd.DataFrame(
        {
            "label": sequences.labels,
            "expert": sequences.expert_column(owner),
            "share": shares[rows, owner],
            "excess": excess[rows, owner],
            "layer": np.asarray(sequences.layers)[place],
            "layer_share": by_layer[rows, place, owner],
            "p_value": chance.p_values[rows, owner],
            "top_expert": sequences.expert_column(top),
            "top_share": shares[rows, top],
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

    def label_sums(
        self, shares: NDArray[np.float64], codes: NDArray[np.intp] | None = None
    ) -> NDArray[np.float64]:
        """Sums of `shares` `[sequence, layer, expert]` for each label: `[label, layer, expert]`."""
        members = np.zeros((len(self.labels), len(shares)))
        members[self.codes if codes is None else codes, np.arange(len(shares))] = 1
        return (members @ shares.reshape(len(shares), -1)).reshape(-1, *shares.shape[1:])

    def label_means(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means of `shares` over the sequences of each label: `[label, layer, expert]`."""
        return self.label_sums(shares) / np.bincount(self.codes)[:, None, None]

    def shuffled(
        self,
        ask: Callable[[NDArray[np.float64]], NDArray[np.float64]],
        shares: NDArray[np.float64],
        permutations: int,
        seed: int,
    ) -> NDArray[np.float64]:
        """What `ask` says of `label_sums` with the labels dealt out at random: `[shuffle, ...]`."""
        rng = np.random.default_rng((seed, _digest(self.shares)))
        deals = (rng.permutation(self.codes) for _ in range(permutations))
        answers = [ask(self.label_sums(shares, codes)) for codes in deals]
        return np.array(answers) if answers else ask(self.label_sums(shares))[None][:0]

    def expert_column(self, codes: NDArray[np.intp]) -> pd.Categorical:
        """A column of experts, by their place."""
        return pd.Categorical.from_codes(codes, categories=self.experts)  # pyright: ignore[reportArgumentType]  (pandas-stubs knows lists only)


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


def _digest(shares: NDArray[np.float64]) -> int:
    """A number that depends on the routing, but not on its last bits or on the experts' order.

    With one set of shuffles for all data the p-values would be off, always to the same side.
    """
    coarse = np.floor(np.sort(shares, axis=-1) * 997.13).astype(np.int64)
    return crc32(coarse.tobytes())


def _excess(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each label's share is above the mean over labels, `[label, layer, expert]`."""
    return means - means.mean(axis=0)


def _information(joint: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mutual information in bits, `[layer]`, of joint amounts `[label, layer, expert]`."""
    cells = joint.swapaxes(0, 1)  # a layer's texts without any weight add nothing
    both = _bits(cells.reshape(len(cells), -1))
    return np.maximum(0.0, _bits(cells.sum(axis=2)) + _bits(cells.sum(axis=1)) - both)


def _bits(amounts: NDArray[Any]) -> NDArray[np.float64]:
    """Entropy in bits of amounts over the last axis; 0 where there are none."""
    return entropy(as_distributions(amounts.astype(np.float64))) / np.log(2)
