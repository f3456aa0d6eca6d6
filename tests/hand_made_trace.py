"""A trace of two tokens, two layers and two experts."""

from types import SimpleNamespace

import numpy as np


def make_trace(**changes):
    weights = np.array([[[1, 0], [0.5, 0.5]], [[0.2, 0.8], [0.3, 0.7]]], np.float32)
    values = dict(
        run="r", experts=("sql", "math"), site_layers=(0, 1), site_modules=None,
        token_ids=np.array([5, 7], np.int32), tokens=("a", "b"),
        generated=np.array([False, True]), special=np.array([True, False]),
        router_logits=weights * 2, router_probs=weights, router_weights=weights + 1,
        routing_weights=weights, overridden=weights > 0.9, contributions=None,
        logprobs=np.array([np.nan, -1.5], np.float32), ranks=np.array([0, 3], np.int32),
        entropies=np.array([np.nan, 2], np.float32),
    )  # fmt: skip
    return SimpleNamespace(**(values | changes))
