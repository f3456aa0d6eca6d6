"""Arrays for the browser: base64 of little-endian numbers, in as few bytes as a view needs."""

from base64 import b64encode
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

_MOST = 65535


class Steps(TypedDict):
    """Numbers in even steps: `least + step * n`."""

    least: float
    step: float
    values: str | None
    """base64 uint16, each n; None where all are 0."""


def packed(values: NDArray[Any], dtype: str) -> str:
    """base64 of an array; `dtype` as numpy writes it, such as `<u2`."""
    return b64encode(np.ascontiguousarray(values.astype(dtype)).tobytes()).decode("ascii")


def packed_bits(values: NDArray[np.bool_]) -> str:
    """base64 of eight to a byte, the highest first."""
    return packed(np.packbits(values), "u1")


def in_steps(values: NDArray[Any]) -> Steps:
    """Numbers to within a 131,070th of their range, the least and the greatest exactly.

    NaN and infinite ones as 0 and as the largest there are.
    """
    finite = np.nan_to_num(values.astype(np.float64), posinf=3e38, neginf=-3e38)
    least = float(finite.min(initial=np.inf)) if finite.size else 0.0
    step = float(finite.max(initial=least) - least) / _MOST
    if step == 0:
        return {"least": least, "step": 0.0, "values": None}
    return {"least": least, "step": step, "values": packed(np.rint((finite - least) / step), "<u2")}
