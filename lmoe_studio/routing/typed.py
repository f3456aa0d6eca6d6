"""TypedRouter: a gate of its own for each type of token (MoIIE, arXiv 2508.09779)."""

from collections.abc import Sequence
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, field_validator
from torch import Tensor

from lmoe_studio.config import Config, printable
from lmoe_studio.errors import ConfigError, did_you_mean
from lmoe_studio.routing.balance import BalanceGroup
from lmoe_studio.routing.gates import even_logit
from lmoe_studio.routing.parameters import Parameters
from lmoe_studio.routing.router import Notes, Reading, Router, RouterSpec, Scores
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.routing.settle import types_need_text
from lmoe_studio.routing.types import TokenType, check_names

_MOST_TYPES = 64


class Typed(Config):
    """What a typed router is told."""

    types: tuple[TokenType, ...] = Field(
        min_length=1,
        max_length=_MOST_TYPES,
        description="Which tokens are alike, and which experts they may use; of several types "
        "that claim a token the last has it. Tokens of none may use all experts.",
    )

    @field_validator("types")
    @classmethod
    def _have_names_of_their_own(cls, types: tuple[TokenType, ...]) -> tuple[TokenType, ...]:
        check_names(types)
        return types


class TypedRouter(Router):
    """`z = W_m rms(h) + b_m` for a token of type m, and exactly 0 for experts it may not use.

    No plan's bias opens a closed door, as the mask is the gate's; `pin` and `solo`, which set
    weights, do. A new one starts at zero: even over what a type allows.
    """

    learned = True
    Options = Typed
    only = MappingProxyType({"pool": "token"})

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        make, types = Parameters(spec), self.options.types
        count = len(spec.experts)
        self.weight = make.full("weight", (len(types) + 1, count, spec.d_in))
        even = even_logit(spec.settings.activation, count)
        self.bias = make.full("bias", (len(types) + 1, count), even)
        self.register_buffer("doors", allowed_experts(types, spec.experts), persistent=False)
        self.doors: Tensor

    @classmethod
    def saved_shapes(
        cls, settings: RouterSettings, num_experts: int, d_in: int | None
    ) -> dict[str, tuple[int | None, ...]]:
        types = len(Typed.model_validate(settings.options).types) + 1
        return {"weight": (types, num_experts, d_in), "bias": (types, num_experts)}

    @classmethod
    def check_experts(cls, options: Typed, experts: tuple[str, ...]) -> None:
        for one in options.types:
            for name in one.experts:
                if name not in experts:
                    raise ConfigError(
                        f"Type '{printable(one.name)}' of the router: no expert "
                        f"'{printable(name)}'; {did_you_mean(name, experts)}"
                    )

    @property
    def token_types(self) -> tuple[TokenType, ...]:
        return self.options.types

    @property
    def reads_whole_prompts(self) -> bool:
        return types_need_text(self.options.types)

    def score(self, reading: Reading) -> Scores:
        types = reading.tokens.types
        assert types is not None
        scores = typed_scores(reading.hidden, types, self.weight)
        return Scores(torch.addcmul(self.bias[types], scores, reading.shrink), {"type": types})

    def allowed(self, notes: Notes) -> Bool[Tensor, "*batch expert"]:
        return self.doors[notes["type"]]

    def balanced(self, notes: Notes, tokens: Bool[Tensor, "batch seq"]) -> list[BalanceGroup]:
        types = notes["type"][:, :, 0]
        return [
            BalanceGroup(row.nonzero().flatten(), tokens & (types == number))
            for number, row in enumerate(self.doors)
        ]


def typed_scores(
    hidden: Float[Tensor, "*batch d_in"],
    types: Int[Tensor, "*batch"],
    weight: Float[Tensor, "type expert d_in"],
) -> Float[Tensor, "*batch expert"]:
    """`W_{m(t)} h_t`, with m(t) the token's type.

    All types' gates are computed, as there are few, and each token's own is taken. Which experts a
    type allows is the mask's to say (`gates.activated`): the original keeps only the rows that a type
    allows, by a list that fits four experts alone; here the sets are free.
    """
    every = torch.einsum("...d,mnd->...mn", hidden, weight)
    own = types.long()[..., None, None].expand(*types.shape, 1, weight.shape[1])
    return every.gather(-2, own).squeeze(-2)


def allowed_experts(
    types: Sequence[TokenType], experts: tuple[str, ...]
) -> Bool[Tensor, "type expert"]:
    """Which experts each type may use; those of no type, in row 0, and one that names none: all."""
    rows = [(), *(one.experts for one in types)]
    return torch.tensor([[not row or name in row for name in experts] for row in rows])
