"""PreRouter: routes known from token ids alone, before the base model runs (Read-ME, arXiv 2410.19123)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from lmoe_studio.config import Config
from lmoe_studio.errors import BankError
from lmoe_studio.routing.gates import even_logit
from lmoe_studio.routing.parameters import Parameters
from lmoe_studio.routing.router import Reading, Router, RouterSpec, Scores
from lmoe_studio.routing.settings import RouterSettings

_EPS = 1e-6
_PRODUCTS = ("q", "k", "v", "o", "up", "down")
_READ = ("ids", "positions", "is_token")


class Pre(Config):
    """What a pre-router is told."""

    width: int = Field(default=64, ge=2, le=4096, description="Of its states.")
    layers: int = Field(default=2, ge=1, le=64)
    heads: int = Field(default=2, ge=1, le=64)
    normaliser: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="What attention scores are divided by; none is the root of a head's width "
        "(Read-ME has 1).",
    )
    theta: float = Field(
        default=10_000.0,
        ge=1,
        le=1e12,
        allow_inf_nan=False,
        description="Base of the rotary angles.",
    )

    @model_validator(mode="after")
    def _has_even_heads(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(
                f"{self.heads} heads of an even width do not fit into a width of {self.width}"
            )
        return self


class PreRouter(Router):
    """A small causal transformer over token ids: what it says is known before the base model runs.

    With scope `shared` a token has one route for all layers, as published; with `tied` every layer
    reads the same states, computed once, by weights of its own. It keeps the ids and reads all of
    them again. A new one starts even.
    """

    learned = True
    Options = Pre
    scopes = ("shared", "tied")
    reads = "ids"
    only = MappingProxyType({"layer_code": 0})
    reading = "reads token ids"

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        make, options, width = Parameters(spec), self.options, self.options.width
        blocks = () if spec.settings.scope == "shared" else (spec.num_layers,)
        shape = *blocks, len(spec.experts)
        self.embed = make.uniform("embed", (spec.d_in, width), -1, 1)
        for layer in range(options.layers):
            self.add_module(str(layer), _layer(make, layer, width))
        self.norm_out = make.full("norm_out", (width,), 1.0)
        self.out = make.full("out", (*shape, width))
        even = even_logit(spec.settings.activation, shape[-1])
        self.out_bias = make.full("out_bias", shape, even)
        if len(self.out) != (*shape, width)[0]:
            raise BankError(
                f"The pre-router has routes for {len(self.out)} decoder blocks, and this base model has "
                f"{shape[0]}; take the router of this base model."
            )

    @classmethod
    def saved_shapes(
        cls, settings: RouterSettings, num_experts: int, d_in: int | None
    ) -> dict[str, tuple[int | None, ...]]:
        options = Pre.model_validate(settings.options)
        width = options.width
        shapes: dict[str, tuple[int | None, ...]] = {"embed": (d_in, width)}
        for layer in range(options.layers):
            shapes |= {f"{layer}.{norm}": (width,) for norm in ("norm_in", "norm_mid")}
            shapes |= {f"{layer}.{name}": (width, width) for name in _PRODUCTS}
            shapes |= {f"{layer}.{name}_bias": (width,) for name in _PRODUCTS}
        blocks = () if settings.scope == "shared" else (None,)
        out: tuple[int | None, ...] = *blocks, num_experts
        return shapes | {"norm_out": (width,), "out": (*out, width), "out_bias": out}

    def score(self, reading: Reading) -> Scores:
        if self.settings.scope == "shared":
            states, read = self._read(reading)
            return Scores(F.linear(states, self.out, self.out_bias), keep=read)
        if "read" not in reading.computed:
            reading.computed["read"] = self._read(reading)
        states, read = reading.computed["read"]
        logits = F.linear(states, self.out[reading.layer], self.out_bias[reading.layer])
        return Scores(logits, keep=read)

    def _read(self, reading: Reading) -> tuple[Tensor, dict[str, Tensor]]:
        """The states of this pass's tokens, and all that was read of the texts by now."""
        tokens, options = reading.tokens, self.options
        read = {name: getattr(tokens, name) for name in _READ}
        if reading.past:
            read = {name: torch.cat([reading.past[name], new], 1) for name, new in read.items()}
        states = id_states(
            **read,
            parameters=dict(self.named_parameters()),
            layers=options.layers,
            heads=options.heads,
            theta=options.theta,
            normaliser=options.normaliser,
        )
        return states[:, -tokens.ids.shape[1] :], read


def _layer(make: Parameters, layer: int, width: int) -> nn.ParameterDict:
    found = {norm: make.full(f"{layer}.{norm}", (width,), 1.0) for norm in ("norm_in", "norm_mid")}
    for name in _PRODUCTS:
        found[name] = make.linear(f"{layer}.{name}", (width, width))
        found[f"{name}_bias"] = make.full(f"{layer}.{name}_bias", (width,))
    return nn.ParameterDict(found)


def id_states(
    ids: Int[Tensor, "batch seq"],
    positions: Int[Tensor, "batch seq"],
    is_token: Bool[Tensor, "batch seq"],
    parameters: Mapping[str, Tensor],
    *,
    layers: int,
    heads: int,
    theta: float = 10000.0,
    normaliser: float | None = None,
) -> Float[Tensor, "batch seq width"]:
    """States of a small causal transformer over ids, normalised for the output layer.

    The whole text is read each time: the published cache attends to memory that was never written.

    Args:
        ids: of the text from its beginning.
        positions: places in the text.
        is_token: False for padding, which nothing attends to.
        parameters: `embed` `[vocabulary, width]`, `norm_out` `[width]`, and of each layer l
            `l.norm_in`, `l.norm_mid`, and `l.x` `[out, in]` with `l.x_bias` for x in q, k, v, o, up, down.
        layers: how many there are.
        heads: of attention.
        theta: base of the rotary angles.
        normaliser: what attention scores are divided by; None is `sqrt(width / heads)`. The original
            has 1.
    """
    x = parameters["embed"][ids]
    width = x.shape[-1]
    cos, sin = _rotary(positions, width // heads, theta, x)
    order = torch.arange(ids.shape[1], device=ids.device)
    # Each place sees itself, so that padding, of which nobody asks anything, stays finite.
    seen = (order[:, None] >= order) & is_token[:, None, None] | (order[:, None] == order)
    scale = None if normaliser is None else 1 / normaliser
    for layer in range(layers):
        normal = F.rms_norm(x, (width,), parameters[f"{layer}.norm_in"], _EPS)
        q, k, v = (
            _linear(parameters, f"{layer}.{name}", normal)
            .unflatten(-1, (heads, -1))
            .transpose(1, 2)
            for name in "qkv"
        )
        q, k = _turned(q, cos, sin), _turned(k, cos, sin)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
        x = x + _linear(parameters, f"{layer}.o", mixed.transpose(1, 2).flatten(-2))
        normal = F.rms_norm(x, (width,), parameters[f"{layer}.norm_mid"], _EPS)
        inner = F.silu(_linear(parameters, f"{layer}.up", normal))
        x = x + _linear(parameters, f"{layer}.down", inner)
    return F.rms_norm(x, (width,), parameters["norm_out"], _EPS)


def _linear(parameters: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, parameters[name], parameters[f"{name}_bias"])


def _rotary(positions: Tensor, width: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles, `[batch, 1, seq, width]`: the same for both halves."""
    powers = torch.arange(0, width, 2, dtype=like.dtype, device=like.device) / width
    angle = positions[:, None, :, None] / theta**powers
    return torch.cat([angle.cos()] * 2, dim=-1), torch.cat([angle.sin()] * 2, dim=-1)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
