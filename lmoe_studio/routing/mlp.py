"""MLPRouter: a router with one hidden layer, in the two forms that were published."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from lmoe_studio.config import Config
from lmoe_studio.routing.gates import even_logit
from lmoe_studio.routing.parameters import Parameters
from lmoe_studio.routing.router import Reading, Router, RouterSpec, Scores
from lmoe_studio.routing.settings import RouterSettings

_PER_EXPERT = 4  # hidden numbers of the SwiGLU form


class Mlp(Config):
    """What an mlp router is told."""

    form: Literal["swiglu", "relu"] = Field(
        default="swiglu", description="As MoA has it, or as WEMoE has it."
    )
    width: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="Of the hidden layer; none is 4 an expert (swiglu) or the input's (relu).",
    )
    start: float | None = Field(
        default=None,
        ge=-100,
        le=100,
        allow_inf_nan=False,
        description="Every expert's logit at first; none is what gives them equal weights. "
        "With activation identity it is the weight itself (WEMoE starts at 0.3).",
    )


class MLPRouter(Router):
    """`z = mlp(rms(h))`. A new one starts even, as its last layer's weight is 0.

    WEMoE draws that weight from normal(0, 0.01), MoA as any other; zero is as good a start, as the
    last layer learns at once and the first with it.
    """

    learned = True
    Options = Mlp

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        options, make, count = self.options, Parameters(spec), len(spec.experts)
        width = _width(options, count, spec.d_in) or spec.d_in
        self.w1 = make.linear("w1", (width, spec.d_in))
        self.b1 = make.full("b1", (width,))
        if options.form == "swiglu":
            self.w3 = make.linear("w3", (width, spec.d_in))
            self.b3 = make.full("b3", (width,))
        self.w2 = make.full("w2", (count, width))
        even = even_logit(spec.settings.activation, count)
        self.b2 = make.full("b2", (count,), even if options.start is None else options.start)

    @classmethod
    def saved_shapes(
        cls, settings: RouterSettings, num_experts: int, d_in: int | None
    ) -> dict[str, tuple[int | None, ...]]:
        options = Mlp.model_validate(settings.options)
        width = _width(options, num_experts, d_in)
        shapes: dict[str, tuple[int | None, ...]] = {
            "w1": (width, d_in), "b1": (width,), "w2": (num_experts, width), "b2": (num_experts,)
        }  # fmt: skip
        if options.form == "swiglu":
            shapes |= {"w3": (width, d_in), "b3": (width,)}
        return shapes

    def score(self, reading: Reading) -> Scores:
        normal = reading.normal
        if self.options.form == "relu":
            return Scores(relu_logits(normal, self.w1, self.b1, self.w2, self.b2))
        return Scores(swiglu_logits(normal, self.w1, self.b1, self.w3, self.b3, self.w2, self.b2))


def _width(options: Mlp, experts: int, d_in: int | None) -> int | None:
    return options.width or (_PER_EXPERT * experts if options.form == "swiglu" else d_in)


def relu_logits(
    hidden: Float[Tensor, "*batch d_in"],
    w1: Float[Tensor, "width d_in"],
    b1: Float[Tensor, " width"],
    w2: Float[Tensor, "expert width"],
    b2: Float[Tensor, " expert"],
) -> Float[Tensor, "*batch expert"]:
    """`W2 relu(W1 h + b1) + b2` (WEMoE, arXiv 2402.00433)."""
    return F.linear(F.relu(F.linear(hidden, w1, b1)), w2, b2)


def swiglu_logits(
    hidden: Float[Tensor, "*batch d_in"],
    w1: Float[Tensor, "width d_in"],
    b1: Float[Tensor, " width"],
    w3: Float[Tensor, "width d_in"],
    b3: Float[Tensor, " width"],
    w2: Float[Tensor, "expert width"],
    b2: Float[Tensor, " expert"],
) -> Float[Tensor, "*batch expert"]:
    """`W2 (silu(W1 h + b1) ∘ (W3 h + b3)) + b2` (MoA, arXiv 2506.05928)."""
    inner = F.silu(F.linear(hidden, w1, b1)) * F.linear(hidden, w3, b3)
    return F.linear(inner, w2, b2)
