"""Which tokens of a pass a scope is about: of a plan's override, or of a token type."""

import torch
from jaxtyping import Bool
from torch import Tensor

from lmoe_studio.errors import PlanError
from lmoe_studio.routing.router import TokenBatch
from lmoe_studio.routing.scopes import Span, Steps, TokenScope


def token_mask(
    scope: TokenScope, tokens: TokenBatch, row: int | slice = slice(None), *, asked_by: object
) -> Bool[Tensor, "*rows seq"]:
    """True for the tokens in scope.

    Args:
        scope: a phase, positions or steps.
        tokens: of the pass.
        row: which of its texts; all of them if left out.
        asked_by: what has the scope, for the message.

    Raises:
        PlanError: the scope is about texts, which have to be settled to positions first.
    """
    steps = tokens.steps[row]
    match scope:
        case "all":
            return torch.ones_like(tokens.is_token[row])
        case "prompt":
            return steps < 0
        case "generated":
            return steps >= 0
        case Steps(steps=wanted):
            return _among(steps, wanted)
        case tuple() | Span() as wanted:
            return _among(tokens.positions[row], wanted) & tokens.is_token[row]
        case _:
            raise PlanError(
                f"{asked_by!r} is about the tokens' texts, which a forward pass does not know; "
                "run it through a Studio, give a tokenizer, or settle it with PlanRow first."
            )


def _among(values: Tensor, wanted: tuple[int, ...] | Span) -> Bool[Tensor, "*rows seq"]:
    if isinstance(wanted, Span):
        inside = values >= wanted.start
        return inside if wanted.stop is None else inside & (values < wanted.stop)
    return torch.isin(values, torch.tensor(wanted, dtype=values.dtype, device=values.device))
