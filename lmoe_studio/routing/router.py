"""Router: what turns hidden states into routing weights, and what every kind of router shares.

A kind of router only says how it scores; pooling, activation, threshold and top-k are done here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lmoe_studio.config import Config
from lmoe_studio.errors import TextError
from lmoe_studio.routing.balance import BalanceGroup
from lmoe_studio.routing.gates import above_threshold, activated, largest, learned_threshold
from lmoe_studio.routing.layer_code import layer_code
from lmoe_studio.routing.pooling import pooled
from lmoe_studio.routing.settings import RouterSettings


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of one forward pass: what a router or a plan may know besides hidden states."""

    ids: Int[Tensor, "batch seq"]
    positions: Int[Tensor, "batch seq"]
    """Place in the sequence, padding not counted."""
    is_token: Bool[Tensor, "batch seq"]
    """False for padding."""
    steps: Int[Tensor, "batch seq"]
    """How many tokens the model had written before each; -1 for those of the prompt."""
    types: Int[Tensor, "batch seq"] | None = None
    """The type of each, where a router wants to know; see `types.py`."""

    def part(self, here: slice) -> "TokenBatch":
        """Some of the tokens of each row."""
        types = None if self.types is None else self.types[:, here]
        return TokenBatch(
            self.ids[:, here],
            self.positions[:, here],
            self.is_token[:, here],
            self.steps[:, here],
            types,
        )


@dataclass(frozen=True)
class Reading:
    """What a router may look at, at one place, in one pass."""

    hidden: Float[Tensor, "batch seq d_in"]
    """In float32 whatever the base model's type is."""
    tokens: TokenBatch
    layer: int = 0
    """The decoder block."""
    past: Mapping[str, Tensor] = field(default_factory=dict)
    """What the router kept here of earlier passes over the same texts; empty at first."""
    computed: dict[str, Any] = field(default_factory=dict)
    """What a router of all places computes once a pass."""
    known_shrink: Float[Tensor, "batch seq 1"] | None = None

    @cached_property
    def shrink(self) -> Float[Tensor, "batch seq 1"]:
        """What RMS normalisation multiplies the hidden states by.

        Apart, because a router that is linear in them can multiply its few scores instead of the
        wide states, which training would have to keep a second time.
        """
        return inverse_rms(self.hidden) if self.known_shrink is None else self.known_shrink

    @property
    def normal(self) -> Float[Tensor, "batch seq d_in"]:
        """The hidden states after RMS normalisation."""
        return self.hidden * self.shrink

    @property
    def in_prompt(self) -> Bool[Tensor, "batch seq"]:
        """Which of the tokens are the prompt's, and no padding."""
        return (self.tokens.steps < 0) & self.tokens.is_token

    def with_code(self, width: int) -> "Reading":
        """With the layer's number written before the hidden states, for a router of all layers."""
        code = layer_code(self.layer, self.hidden, width) / self.shrink
        hidden = torch.cat([code, self.hidden], dim=-1)
        return replace(self, hidden=hidden, known_shrink=self.shrink)


Notes = Mapping[str, Tensor]
"""What a router notes about each token, `[batch, seq, …]`: its type, its neighbours, its paths."""


@dataclass(frozen=True)
class Scores:
    """What a kind of router makes of a reading."""

    logits: Float[Tensor, "batch seq expert"]
    notes: Notes = field(default_factory=dict)
    """For traces, and all that the gate must know besides the logits."""
    keep: Mapping[str, Tensor] = field(default_factory=dict)
    """`[batch, …]`: what its reading of the next pass over the same texts holds as `past`."""


@dataclass(frozen=True)
class RouterOutput:
    """What a router says about each token."""

    logits: Float[Tensor, "batch seq expert"]
    probs: Float[Tensor, "batch seq expert"]
    """softmax or sigmoid of `logits / temperature`, before top-k."""
    weights: Float[Tensor, "batch seq expert"]
    """`probs` after top-k: dense, zero where unused."""
    gate: Callable[[Tensor], Tensor]
    """The weights that the router would make of other logits: of these, `weights` to the bit."""
    notes: Notes = field(default_factory=dict)
    keep: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class RouterSpec:
    """What a router is made from: the same for every kind."""

    settings: RouterSettings
    experts: tuple[str, ...]
    """Names, in the bank's order."""
    d_in: int
    """Width of the hidden states it will read."""
    state: Mapping[str, Tensor]
    """Its tensors by name: those that were saved, or are made of the experts; empty for a new one."""
    num_layers: int = 1
    """Decoder blocks of the base model."""


class NoOptions(Config):
    """A kind of router that is told nothing of its own."""


class Router(nn.Module):
    """Scores experts, in float32 whatever the base model's type is.

    A subclass says how it scores, and what is particular to it; `registry.py` lists them.
    """

    learned: ClassVar[bool] = False
    """Whether it has parameters to train."""
    reads: ClassVar[Literal["hidden", "ids"]] = "hidden"
    """What its `d_in` is the width of: hidden states, or the vocabulary."""
    scopes: ClassVar[tuple[str, ...]] = ("layer", "shared", "module", "tied")
    """Where such routers can stand."""
    reading: ClassVar[str] = "reads hidden states"
    """What it does with its input, for the message about another scope."""
    only: ClassVar[Mapping[str, object]] = MappingProxyType({})
    """Settings that would mean nothing to it, and the one value that they can have."""
    Options: ClassVar[type[Config]] = NoOptions
    """What it is told besides what every router is told."""

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__()
        self.settings = spec.settings
        self.options: Any = self.Options.model_validate(spec.settings.options)
        self.threshold = LearnedThreshold(spec) if spec.settings.learns_threshold else None

    @classmethod
    def saved_shapes(
        cls,
        settings: RouterSettings,  # noqa: ARG003
        num_experts: int,  # noqa: ARG003
        d_in: int | None,  # noqa: ARG003
    ) -> dict[str, tuple[int | None, ...]]:
        """All tensors that a bank keeps of it, by name; None stands for any size, as `d_in` does."""
        return {}

    @classmethod
    def all_shapes(
        cls, settings: RouterSettings, num_experts: int, d_in: int | None
    ) -> dict[str, tuple[int | None, ...]]:
        """The same with those that every kind has where its settings ask for them."""
        threshold = LearnedThreshold.shapes(d_in) if settings.learns_threshold else {}
        return cls.saved_shapes(settings, num_experts, d_in) | threshold

    @classmethod
    def check_experts(cls, options: Any, experts: tuple[str, ...]) -> None:
        """Raise ConfigError where its options name an expert that the bank does not have."""

    @classmethod
    def prepared(
        cls,
        factors: Sequence[tuple[Tensor, Tensor] | None],  # noqa: ARG003
        d_in: int,  # noqa: ARG003
    ) -> dict[str, Tensor]:
        """Tensors that are not saved but made of the experts.

        Args:
            factors: each expert's `a [rank, d_in]` and `b [d_out, rank]` in the linear layer where
                the router stands; none where it stands in no single one.
            d_in: width of what it reads.
        """
        return {}

    def saved(self) -> dict[str, Tensor]:
        """The tensors that a bank keeps of it, by name."""
        return dict(self.named_parameters())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """What `to`, `half` and `double` go through: it moves with the model and keeps its type."""

        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            if found.dtype == tensor.dtype:
                return found
            return tensor.to(found.device)

        return super()._apply(moved, recurse)

    @property
    def reads_whole_prompts(self) -> bool:
        """Whether the end of a prompt decides how its beginning is routed."""
        return self.settings.pool == "prompt"

    @property
    def token_types(self) -> Sequence[Any]:
        """The types of tokens that it tells apart; see `types.py`."""
        return ()

    def score(self, reading: Reading) -> Scores:
        """Logits from what may be read, and what is to be noted or kept of it."""
        raise NotImplementedError

    def allowed(self, notes: Notes) -> Bool[Tensor, "*#batch expert"] | None:
        """Which experts each token may use, at least one; None where it may use all."""
        return None

    def balanced(self, notes: Notes, tokens: Bool[Tensor, "batch seq"]) -> list[BalanceGroup]:
        """Which experts are to be used evenly, and by which of these tokens: all by all.

        Args:
            notes: of a record, `[batch, seq, site, …]`.
            tokens: that are no padding.
        """
        return [BalanceGroup(slice(None), tokens)]

    def decide(
        self, logits: Float[Tensor, "*batch expert"], notes: Notes
    ) -> tuple[Float[Tensor, "*batch expert"], Float[Tensor, "*batch expert"]]:
        """Probabilities and weights of logits, its own or changed ones.

        Args:
            logits: of each token.
            notes: its own, of the same tokens.
        """
        said = self.settings
        probs = activated(logits, said.activation, said.temperature, self.allowed(notes))
        kept = probs
        if said.threshold is not None:
            least = notes.get("threshold", said.threshold.limit)
            kept = above_threshold(probs, least, said.threshold.rule)
        signed = said.activation == "identity"
        return probs, largest(kept, said.top_k, renormalise=said.renormalise, signed=signed)

    def gate(
        self, logits: Float[Tensor, "*batch expert"], notes: Notes
    ) -> Float[Tensor, "*batch expert"]:
        """The weights alone."""
        return self.decide(logits, notes)[1]

    def forward(self, reading: Reading) -> RouterOutput:
        if torch.is_autocast_enabled(reading.hidden.device.type):
            with torch.autocast(reading.hidden.device.type, enabled=False):
                return self._route(reading)
        return self._route(reading)

    def _route(self, reading: Reading) -> RouterOutput:
        if self.settings.layer_code:
            reading = reading.with_code(self.settings.layer_code)
        scores = self.score(reading)
        logits, notes, keep = scores.logits, scores.notes, scores.keep
        if self.threshold is not None:
            notes = {**notes, "threshold": self.threshold(reading)}
        if self.settings.pool != "token":
            self._refuse_parts(reading)
            logits, pool = pooled(logits, reading.in_prompt, self.settings.pool, reading.past)
            keep = {**keep, **pool}
        probs, weights = self.decide(logits, notes)
        return RouterOutput(logits, probs, weights, partial(self.gate, notes=notes), notes, keep)

    def _refuse_parts(self, reading: Reading) -> None:
        if self.settings.pool == "prompt" and reading.past and bool(reading.in_prompt.any()):
            raise TextError(
                "The router decides once for a whole prompt (pool: prompt), and a further part of "
                "one came; read the prompt in one pass."
            )


class LearnedThreshold(nn.Module):
    """Each token's own threshold, `limit · sigmoid(v · rms(h) + c)`; a new one is half the limit."""

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__()
        assert spec.settings.threshold is not None
        self.limit = spec.settings.threshold.limit
        weight = spec.state.get("threshold.weight", torch.zeros(1, spec.d_in))
        bias = spec.state.get("threshold.bias", torch.zeros(1))
        self.weight = nn.Parameter(weight.float().clone())
        self.bias = nn.Parameter(bias.float().clone())

    @staticmethod
    def shapes(d_in: int | None) -> dict[str, tuple[int | None, ...]]:
        return {"threshold.weight": (1, d_in), "threshold.bias": (1,)}

    def forward(self, reading: Reading) -> Float[Tensor, "batch seq 1"]:
        return learned_threshold(reading.normal, self.weight, self.bias, self.limit)


def inverse_rms(
    hidden: Float[Tensor, "*batch d_in"], eps: float = 1e-6
) -> Float[Tensor, "*batch 1"]:
    """What RMS normalisation without parameters multiplies by: `1 / sqrt(mean(h²) + eps)`.

    Deep blocks' large states then do not saturate a softmax.
    """
    norm = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
    return (norm.square() / hidden.shape[-1] + eps).rsqrt()
