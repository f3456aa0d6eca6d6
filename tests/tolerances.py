"""How far two sound ways to the same number may come apart in float32.

The error of a sum is at most its terms × eps × the size of what is summed, whatever the order (Higham,
Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). A pass through a tiny model is a chain
of 3 blocks with 7 products, of at most 48 terms each; each of the two ways has its own error.
"""

import torch

EPS = 2.0**-23
_BOUND = 2 * 3 * 7 * 48 * EPS  # 2.4e-4
ONE_PASS = {"atol": _BOUND, "rtol": _BOUND}
"""What two ways of running a tiny model may differ by: one batch or several, cached or not, …"""


def of_gradient(expected: torch.Tensor) -> dict[str, float]:
    """The same for a gradient, which is a chain twice as long and of any size."""
    return {
        "atol": 2 * ONE_PASS["atol"] * float(expected.abs().max()),
        "rtol": 2 * ONE_PASS["rtol"],
    }
