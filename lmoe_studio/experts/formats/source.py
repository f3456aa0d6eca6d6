"""AdapterSource: an adapter as some tool keeps it, told in PEFT's words."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TypeGuard

from torch import Tensor

from lmoe_studio.base_models import BaseIdentity
from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.adapter_config import CONFIG, MAX_ALPHA
from lmoe_studio.experts.safetensors_check import (
    Header,
    open_regular,
    read_header,
    require_size,
    show,
)
from lmoe_studio.experts.safetensors_load import load_tensors

MAX_WEIGHTS_BYTES = 8 << 30

Confirm = Callable[[BufferedReader, str], None]
"""Is shown an open file and its name before the contents are used; raises AdapterError."""


@dataclass(frozen=True)
class Tensors:
    """The tensors of an adapter, seen and not yet read."""

    shapes: Mapping[str, tuple[int, ...]]
    """By PEFT's names: `model.layers.0.self_attn.q_proj.lora_A.weight`."""
    load: Callable[[], dict[str, Tensor]]
    """Reads them all; raises AdapterError."""
    metadata: object = None
    """What the file says of itself, unchecked."""


@dataclass(frozen=True)
class AdapterSource:
    """An adapter of any format: what PEFT would have written for it."""

    fields: Mapping[str, object]
    """Those of an adapter_config.json, unchecked."""
    weights: str
    """Its file of tensors, for messages."""
    open: Callable[[], AbstractContextManager[Tensors]]
    """Gives the tensors while their files stay open; raises AdapterError."""
    settings: str = CONFIG
    """Where its fields stand, for messages."""
    notes: tuple[str, ...] = ()
    """What was read otherwise than it stands there, a sentence each."""


@dataclass(frozen=True)
class Format:
    """One way to keep a LoRA."""

    name: str
    fits: Callable[[Path], bool]
    """Whether a file or a folder is kept so; looks at names and first bytes only."""
    read: Callable[[Path, BaseIdentity], AdapterSource]
    """Reads one that fits, for a base model; raises AdapterError."""


@contextmanager
def open_tensors(
    files: Mapping[str, Path],
    *,
    axes: Collection[int] = (2,),
    confirm: Confirm = lambda _, __: None,
) -> Iterator[Tensors]:
    """The tensors of one safetensors file, or of the parts of one.

    Args:
        files: by the names that messages give them.
        axes: how many axes a tensor may have.
        confirm: is shown each file before its tensors are read.

    Raises:
        AdapterError: a file is no sound safetensors file, or holds a tensor of another.
    """
    with ExitStack() as stack:
        opened = dict[str, tuple[BufferedReader, Header]]()
        shapes = dict[str, tuple[int, ...]]()
        for name, path in files.items():
            file = stack.enter_context(open_regular(path))
            require_size(file, name, MAX_WEIGHTS_BYTES)
            header = read_header(file, name, axes=axes)
            if twice := shapes.keys() & header.shapes.keys():
                raise AdapterError(
                    f"{name} holds the tensor {show(min(twice))}, which another part has too; copy "
                    "the files again."
                )
            shapes |= header.shapes
            opened[name] = file, header

        def load() -> dict[str, Tensor]:
            tensors = dict[str, Tensor]()
            for name, (file, header) in opened.items():
                confirm(file, name)
                tensors |= load_tensors(file, header, name)
            return tensors

        metadata = next(iter(opened.values()))[1].metadata
        yield Tensors(shapes, load, metadata)


def read_tensors(path: Path, *, axes: Collection[int]) -> tuple[dict[str, Tensor], object]:
    """All tensors of a safetensors file, and what it says of itself. Raises AdapterError."""
    with open_tensors({path.name: path}, axes=axes) as tensors:
        return tensors.load(), tensors.metadata


def as_peft(
    factors: Mapping[str, tuple[Tensor, Tensor, float]],
    weights: str,
    *,
    others: Mapping[str, Tensor] | None = None,
    base: str | None = None,
    notes: tuple[str, ...] = (),
) -> AdapterSource:
    """What PEFT would write for some pairs of matrices.

    Args:
        factors: A `[rank, d_in]`, B `[d_out, rank]` and the scale of `scale · B @ A`, by path.
        weights: the file they are of.
        others: tensors that are no such pair, by their own names; they will be refused, or left out.
        base: the base model, where the file names it.
        notes: to be told.

    Raises:
        AdapterError: a scale is none that a LoRA can have.
    """
    tensors, ranks, alphas = dict(others or {}), dict[str, int](), dict[str, float]()
    for path, (a, b, scale) in factors.items():
        rank = len(a)
        alpha = scale * rank
        if not 0 < alpha <= MAX_ALPHA:  # false for NaN too
            raise AdapterError(
                f"{weights} scales {show(path)} by {scale:g} where a number above 0 and at most "
                f"{MAX_ALPHA / rank:g} was expected; export it again."
            )
        ranks[f"^{path}"], alphas[f"^{path}"] = rank, alpha
        tensors |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    fields = {
        "peft_type": "LORA", "r": 1, "lora_alpha": 1, "rank_pattern": ranks,
        "alpha_pattern": alphas, "base_model_name_or_path": base,
    }  # fmt: skip
    return AdapterSource(fields, weights, lambda: _held(tensors), weights, notes)


@contextmanager
def _held(tensors: dict[str, Tensor]) -> Iterator[Tensors]:
    yield Tensors({name: tuple(tensor.shape) for name, tensor in tensors.items()}, lambda: tensors)


def pairs(
    sides: Mapping[str, Mapping[str, Tensor]], weights: str
) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B by path, of what was found of each. Raises AdapterError where one is missing."""
    found = dict[str, tuple[Tensor, Tensor]]()
    for path, both in sides.items():
        if missing := {"A", "B"} - both.keys():
            raise AdapterError(
                f"{weights} has one of the two matrices of {show(path)} and not its lora_"
                f"{missing.pop()}; copy the file again."
            )
        found[path] = both["A"], both["B"]
    return found


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value from a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
