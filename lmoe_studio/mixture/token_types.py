"""The types of a pass's tokens, from their texts where a type is about texts."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lmoe_studio.errors import TextError
from lmoe_studio.mixture.past import Memory
from lmoe_studio.routing.router import TokenBatch
from lmoe_studio.routing.settle import PlanRow, types_need_text
from lmoe_studio.routing.types import TokenType, with_types

Texts = Callable[[list[int]], Sequence[str]]
"""The text that each of some tokens adds to those before it."""

_PLACE, _READ = "types", ("ids", "steps", "is_token")


def typed(
    tokens: TokenBatch, types: Sequence[TokenType], texts: Texts | None, past: Memory
) -> tuple[TokenBatch, Memory]:
    """Tokens that know their types, and what to keep for the next pass over these texts.

    Args:
        tokens: of this pass.
        types: that the routers tell apart; none leaves the tokens as they are.
        texts: of token ids; None where nobody knows them.
        past: what was kept; types that are about texts need all that was read.

    Raises:
        PlanError: a type is about texts, and nobody knows them.
        TextError: such a type needs the whole prompt, and a further part of one came.
    """
    if tokens.types is not None or texts is None or not types_need_text(types):
        return with_types(tokens, [types] * len(tokens.ids)), {}
    before = past.get(_PLACE, {})
    if before and bool(((tokens.steps < 0) & tokens.is_token).any()):
        raise TextError(
            "The router has token types that are found in the text of a whole prompt, and a further "
            "part of one came; read the prompt in one pass."
        )
    read = {
        name: torch.cat([before[name], new], dim=1) if before else new
        for name, new in ((name, getattr(tokens, name)) for name in _READ)
    }
    rows = [_settled(*row, types=types, texts=texts) for row in zip(*read.values(), strict=True)]
    return with_types(tokens, rows), {_PLACE: read}


def _settled(
    ids: Tensor, steps: Tensor, is_token: Tensor, *, types: Sequence[TokenType], texts: Texts
) -> Sequence[TokenType]:
    parts = texts(ids[is_token].tolist())
    prompt = int((steps[is_token] < 0).sum())
    return PlanRow(parts[:prompt]).types_for_continuation(types, parts[prompt:])
