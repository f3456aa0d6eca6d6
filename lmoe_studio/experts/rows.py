"""TokenRows: which rows of what a layer reads belong to which token.

Most layers read `[batch, seq, d]`. Some models flatten that, read one text's heads side by side, or
several streams of each text: `[stream, batch, seq, d]`, `[batch, head, seq, d]`; or each token in
several slots: `[token, slot, d]`.
"""

from math import prod
from typing import NamedTuple, Self

from torch import Tensor


class TokenRows(NamedTuple):
    """The axes of a layer's rows: `[before, batch, between, seq, after]`."""

    before: int
    batch: int
    between: int
    seq: int
    after: int

    @classmethod
    def of(cls, x: Tensor, batch: int, seq: int) -> Self | None:
        """The axes of `x`, whose last one are its features; None where they cannot be told."""
        lead = x.shape[:-1]
        if prod(lead) == batch * seq:
            return cls(1, batch, 1, seq, 1)
        if lead[-2:] == (batch, seq):
            return cls(prod(lead[:-2]), batch, 1, seq, 1)
        if lead[:2] == (batch, seq):
            return cls(1, batch, 1, seq, prod(lead[2:]))
        if lead[0] == batch * seq:
            return cls(1, batch, 1, seq, prod(lead[1:]))
        if len(lead) > 2 and (lead[0], lead[-1]) == (batch, seq):
            return cls(1, batch, prod(lead[1:-1]), seq, 1)
        return None

    @property
    def are_tokens(self) -> bool:
        """Whether there is one row a token."""
        return self.before * self.between * self.after == 1

    def spread(self, weights: Tensor) -> Tensor:
        """`[batch, seq, n]` as `[row, n]`: each row has its token's."""
        if self.are_tokens:
            return weights.flatten(0, 1)
        n = weights.shape[-1]
        apart = weights.view(1, self.batch, 1, self.seq, 1, n)
        return apart.expand(*self, n).reshape(-1, n)

    def gather(self, rows: Tensor) -> Tensor:
        """`[row, n]` as `[batch, seq, n]`: each token has the sum of its rows."""
        return rows.reshape(*self, -1).sum(dim=(0, 2, 4))

    def first(self, x: Tensor) -> Tensor:
        """Of `x` itself the first row of each token, `[batch, seq, d]`."""
        return x.reshape(*self, x.shape[-1])[0, :, 0, :, 0]
