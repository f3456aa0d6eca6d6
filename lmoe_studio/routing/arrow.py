"""ArrowRouter: routes imported adapters at once, with no training (arXiv 2405.11157).

Each expert is known by the direction of input that its update amplifies most. A token goes to
the experts whose direction its hidden state points along.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lmoe_studio.routing.router import Reading, Router, RouterSpec, Scores


class ArrowRouter(Router):
    """`z_i = |v_i · rms(x)|`, with `v_i` the top right singular vector of `B_i A_i`.

    The sign of a singular vector means nothing, hence the absolute value. The input is
    RMS-normalised as for every router here (the paper takes it as it comes), which makes the
    scores of a token that points nowhere in particular about 1 and leaves `temperature` a
    meaning that does not change with depth.
    """

    scopes = ("module",)
    reading = "compares each linear layer's input with its experts"

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        none = torch.zeros(len(spec.experts), spec.d_in)
        self.register_buffer("prototypes", spec.state.get("prototypes", none).float())
        self.prototypes: Tensor

    @classmethod
    def prepared(
        cls, factors: Sequence[tuple[Tensor, Tensor] | None], d_in: int
    ) -> dict[str, Tensor]:
        rows = [prototype(*pair) if pair else torch.zeros(d_in) for pair in factors]
        return {"prototypes": torch.stack(rows)}

    def score(self, reading: Reading) -> Scores:
        return Scores((reading.hidden @ self.prototypes.T).abs() * reading.shrink)


def prototype(
    a: Float[Tensor, "*fused rank d_in"], b: Float[Tensor, "*fused d_out rank"]
) -> Float[Tensor, " d_in"]:
    """Top right singular vector of `b @ a`, without forming the product.

    With `b = Q_b R_b` and `aᵀ = Q_a R_a`, the singular values of `b a` are those of the small
    `R_b R_aᵀ`, and its right singular vectors are `Q_a` times the small one's. Of several updates that
    read alike (fused experts), it is that of all of them, one above the other.
    """
    one_a, ones_b = a.flatten(0, -2), b.reshape(-1, *b.shape[-2:])
    q, r_a = torch.linalg.qr(one_a.T.cpu().double())  # there: not every device has float64
    r_b = torch.linalg.qr(ones_b.cpu().double(), mode="r").R
    right = torch.linalg.svd(torch.block_diag(*r_b) @ r_a.T, full_matrices=False).Vh[0]
    return (q @ right).to(a.dtype)
