"""Token types: which kind of token each one is, settled like the scopes of a plan."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from pydantic import Field, field_validator
from torch import Tensor

from lmoe_studio.config import Config, printable
from lmoe_studio.routing.router import TokenBatch
from lmoe_studio.routing.scopes import TokenScope
from lmoe_studio.routing.token_masks import token_mask

OTHER = "other"
"""The type of tokens that no type claims; its number is 0."""


class TokenType(Config):
    """Tokens that are routed alike: a name, where they are, and which experts they may use."""

    name: str = Field(min_length=1, max_length=80)
    tokens: TokenScope = Field(
        description="all, prompt, generated, positions, steps, a text or a regular expression."
    )
    experts: tuple[str, ...] = Field(
        default=(), description="Those that such tokens may use; none named allows all."
    )

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name == OTHER:
            raise ValueError(f"'{OTHER}' is the type of tokens that no type claims")
        return name

    @field_validator("tokens")
    @classmethod
    def _claims_some(cls, tokens: TokenScope) -> TokenScope:
        if tokens == ():
            raise ValueError("an empty list claims no token")
        return tokens


def check_names(types: Sequence[TokenType]) -> None:
    """Raise ValueError, one clause, if two types have one name."""
    names = [one.name for one in types]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two types are called '{printable(twice)}'")


def with_types(tokens: TokenBatch, rows: Sequence[Sequence[TokenType]]) -> TokenBatch:
    """Tokens that know their types, where there are types to know and nobody has said them.

    Raises:
        PlanError: see `compile_types`.
    """
    if not any(rows) or tokens.types is not None:
        return tokens
    return replace(tokens, types=compile_types(rows, tokens))


def compile_types(
    rows: Sequence[Sequence[TokenType]], tokens: TokenBatch
) -> Int[Tensor, "batch seq"]:
    """The number of each token's type: 0 for none, 1 for the first; of several the last claims it.

    Args:
        rows: each text's types, which differ in nothing but what their text scopes settled to.
        tokens: of this pass.

    Raises:
        PlanError: a type has a scope that only the text can settle.
    """
    found = torch.zeros_like(tokens.ids)
    alike = all(types is rows[0] for types in rows)
    for row, types in [(slice(None), rows[0])] if alike else enumerate(rows):
        for number, one in enumerate(types, start=1):
            mask = token_mask(one.tokens, tokens, row, asked_by=one)
            found[row] = found[row].masked_fill(mask, number)
    return found
