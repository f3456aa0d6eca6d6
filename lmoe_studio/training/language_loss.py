"""The language-modelling loss, in training and in evaluation."""

import torch.nn.functional as F
from torch import Tensor

from lmoe_studio.training.examples import IGNORED


def summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in nats of each token given those before it, summed; IGNORED is left out.

    Args:
        logits: `[batch, seq, vocab]`
        labels: `[batch, seq]`
    """
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),
        labels[:, 1:].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )


def learned_tokens(labels: Tensor) -> Tensor:
    """How many tokens that sum is over."""
    return (labels[:, 1:] != IGNORED).sum()
