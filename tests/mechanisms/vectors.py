"""Reference numbers of published mechanisms, in float64: `<mechanism>.json` beside this file.

Most were compared with the original code; inputs have at most 4 decimals.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

EXACT = {"atol": 1e-10, "rtol": 0.0}


@cache
def cases(mechanism: str) -> dict[str, Any]:
    path = Path(__file__).with_name(f"{mechanism}.json")
    return _tensors(json.loads(path.read_text())["cases"])


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, **EXACT)


def _tensors(value: Any) -> Any:
    match value:
        case dict():
            return {key: _tensors(inner) for key, inner in value.items()}
        case [dict(), *_]:
            return [_tensors(inner) for inner in value]
        case [str(), *_]:
            return value
        case list():
            found = torch.tensor(value)
            return torch.tensor(value, dtype=torch.float64) if found.is_floating_point() else found
        case _:
            return value
