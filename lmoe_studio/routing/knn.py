"""KnnRouter: routes by the nearest examples, with nothing trained (RTD, arXiv 2409.20181)."""

import torch
from pydantic import Field
from torch import Tensor

from lmoe_studio.config import Config
from lmoe_studio.errors import BankError
from lmoe_studio.routing.neighbours import nearest, squared_distances, vote_logits, votes
from lmoe_studio.routing.router import Reading, Router, RouterSpec, Scores
from lmoe_studio.routing.settings import RouterSettings

_SHOWN = 3  # of a token's neighbours are kept in traces


class Knn(Config):
    """What a knn router is told."""

    k: int = Field(default=32, ge=1, le=4096, description="Neighbours that vote.")
    temperature: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        allow_inf_nan=False,
        description="Of the vote, in squared distances; none is the usual one of the memory.",
    )
    heads: int = Field(
        default=1, ge=1, le=1024, description="Slices of the states that vote each for itself."
    )


class KnnRouter(Router):
    """`z = log p`, with p the vote of the examples whose states are nearest to `rms(h)`.

    So a softmax at temperature 1 gives the vote back. Its memory is made of labelled examples
    (`training/memory.py`); without one it is even. Files hold its integers as floats.
    """

    Options = Knn
    scopes = ("layer", "shared")
    reading = "compares states with those of examples"

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        self.count = len(spec.experts)
        state = spec.state
        keys = state.get("keys", torch.zeros(0, spec.d_in))
        self.register_buffer("keys", keys.float())
        self.keys: Tensor
        for name in ("labels", "sources"):
            self.register_buffer(name, state.get(name, torch.zeros(len(keys))).long())
        self.labels: Tensor
        """The expert of each key."""
        self.sources: Tensor
        """Where each key is from: a row of the memory's table."""
        self.register_buffer("usual_temperature", state.get("usual_temperature", torch.ones(1)))
        self.usual_temperature: Tensor
        self._check()

    @classmethod
    def saved_shapes(
        cls,
        settings: RouterSettings,  # noqa: ARG003
        num_experts: int,  # noqa: ARG003
        d_in: int | None,
    ) -> dict[str, tuple[int | None, ...]]:
        return {
            "keys": (None, d_in),
            "labels": (None,),
            "sources": (None,),
            "usual_temperature": (1,),
        }

    def saved(self) -> dict[str, Tensor]:
        return dict(self.named_buffers()) if len(self.keys) else {}

    def score(self, reading: Reading) -> Scores:
        normal = reading.normal
        if not len(self.keys):
            return Scores(normal.new_zeros(*normal.shape[:-1], self.count))
        distances = squared_distances(normal, self.keys, self.options.heads)
        near = nearest(distances, self.options.k)
        temperature = self.options.temperature or self.usual_temperature
        shares = votes(near, self.labels, self.count, temperature).mean(dim=-2)
        shown = nearest(distances.mean(dim=-2), _SHOWN)
        return Scores(
            vote_logits(shares),
            {"neighbour": self.sources[shown.key], "neighbour_distance": shown.distance},
        )

    def _check(self) -> None:
        sizes = {len(self.keys), len(self.labels), len(self.sources)}
        if len(sizes) > 1:
            raise BankError(
                "The knn router's memory has not as many labels and sources as keys; build it again."
            )
        if (
            len(self.labels)
            and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.count
        ):
            raise BankError(
                "The knn router's memory has a label that is no expert of this bank; build it again."
            )
        if len(self.keys):
            check_heads(self.keys.shape[1], self.options.heads)


def check_heads(width: int, heads: int) -> None:
    """Raise BankError where states cannot be cut into so many slices."""
    if width % heads:
        raise BankError(
            f"The knn router cannot cut states of width {width} into {heads} heads; choose a divisor."
        )
