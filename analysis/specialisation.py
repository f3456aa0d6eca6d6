"""Do experts own labels? Mutual information of label and expert, against shuffled labels."""

import numpy as np
import pandas as pd


def specialisation(frame: pd.DataFrame, *, permutations: int = 200, seed: int = 0) -> pd.DataFrame:
    """How much an expert's share of the routing says about the label, by layer.

    For each layer the joint distribution p(label, expert) is the mean routing weight that the
    sequences of a label give an expert, every sequence counting the same; the result is its
    mutual information `Σ p(l, e) log2(p(l, e) / (p(l) p(e)))`. The baseline is the same number
    with the labels dealt out to the sequences at random: what chance alone would show.

    Args:
        frame: columns `sequence`, `label`, `layer`, `expert`, `weight`; a sequence has one label.
        permutations: how often to shuffle.
        seed: of the shuffling.

    Returns:
        One row a layer: `layer`, `information` (bits), `baseline` (mean of the shuffles),
        `baseline_95` (their 95th percentile), `p_value` (share of shuffles at least as high,
        counting the real one), `maximum` (entropy of the labels: the most there can be).
    """
    shares = frame.pivot_table(
        index=["layer", "sequence"],
        columns="expert",
        values="weight",
        aggfunc="mean",
        observed=True,
    )
    owner = frame.drop_duplicates("sequence").set_index("sequence")["label"]
    rng = np.random.default_rng(seed)
    rows = []
    for layer, group in shares.groupby(level="layer"):
        weights = group.to_numpy(dtype=float)
        weights = weights / weights.sum()
        codes = pd.factorize(owner.loc[group.index.get_level_values("sequence")])[0]
        found = _information(weights, codes)
        chance = np.array(
            [_information(weights, rng.permutation(codes)) for _ in range(permutations)]
        )
        rows.append(
            {
                "layer": layer,
                "information": found,
                "baseline": chance.mean(),
                "baseline_95": np.quantile(chance, 0.95),
                "p_value": (1 + (chance >= found).sum()) / (1 + permutations),
                "maximum": _entropy(np.bincount(codes) / len(codes)),
            }
        )
    return pd.DataFrame(rows)


def _information(weights: np.ndarray, codes: np.ndarray) -> float:
    joint = np.zeros((codes.max() + 1, weights.shape[1]))
    np.add.at(joint, codes, weights)
    return _entropy(joint.sum(1)) + _entropy(joint.sum(0)) - _entropy(joint.ravel())


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())
