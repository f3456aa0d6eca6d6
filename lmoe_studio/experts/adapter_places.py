"""Which layer of the base model each tensor of an adapter's file belongs to.

The adapter may have been trained on a model that wraps the same blocks otherwise: a Gemma 3 that
reads images calls `model.language_model.layers.0` what the text model calls `model.layers.0`. And
tools write keys with PEFT's prefixes, with those of torch.compile, or with none.

Weights of fused experts have no names in the file: PEFT puts a layer around their module for each of
them, the first innermost, so that `experts.base_layer.lora_A` is of the first of two.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from lmoe_studio.architecture import FUSED
from lmoe_studio.experts.adapter_config import ends
from lmoe_studio.experts.safetensors_check import show

_INNER = ".base_layer"
_PREFIX = re.compile(r"(?:base_model\.model\.|module\.|_orig_mod\.)*")
_KEY = re.compile(r"(\w+(?:\.\w+)*?)\.lora_([AB])(?:\.default)?\.weight", re.ASCII)
_WRAPPERS = r"(?:(?:model|base_model|language_model|text_model|decoder|transformer)\.)*"
_MAX_KEY_LENGTH = 300

_BASE_WEIGHT = "it belongs to the base model; save with save_embedding_layers=False"
_REASONS = {
    "lora_embedding_": "it adapts an embedding, which all experts share",
    "lora_magnitude_vector": "it belongs to DoRA",
    ".bias": "it is a bias",
    ".base_layer.weight": _BASE_WEIGHT,
    "embed_tokens.weight": _BASE_WEIGHT,
    "modules_to_save": "it replaces a layer of the base model",
}


@dataclass(frozen=True)
class BaseLayers:
    """The layers of the base model that an expert can change, where one was seen."""

    shapes: Mapping[str, tuple[int, ...]] | None = None
    """`(d_out, d_in)` of linear layers, `(fused, d_out, d_in)` of weights of fused experts, by path."""
    blocks: str | None = None
    """Path of the list of decoder blocks."""

    def fitted(self, path: str) -> str:
        """A layer's path in this base model, from its path in the model it was trained on."""
        if self.shapes is None or self.blocks is None or path in self.shapes:
            return path
        own = self.blocks.rpartition(".")[2]
        match = re.fullmatch(rf"{_WRAPPERS}({re.escape(own)}\.\d+\..+)", path)
        if match is None:
            return path
        there = self.blocks.removesuffix(own) + match[1]
        return there if there in self.shapes else path

    def is_fused(self, path: str) -> bool:
        """Whether that may be a weight of fused experts."""
        if self.shapes is None:
            return path.rpartition(".")[2] in FUSED
        return len(self.shapes.get(self.fitted(path), ())) > 2

    def is_routed(self, path: str) -> bool:
        """Whether a layer lies in a decoder block, where a router is."""
        return self.blocks is None or path.startswith(f"{self.blocks}.")


@dataclass
class Place:
    """A layer that the adapter changes."""

    path: str
    """In the base model."""
    own: str
    """In the model that the adapter was trained on, of which its configuration speaks."""
    keys: dict[str, str] = field(default_factory=dict)
    """Its tensors in the file, by side: A and B."""
    is_fused: bool = False
    """Whether it is a weight of fused experts."""


@dataclass
class Places:
    """All layers of a file, in order of their paths, and what is no part of a plain LoRA."""

    found: dict[str, Place]
    left_out: tuple[str, ...]
    """Keys that were left out as was asked."""
    differences: list[str]


def find_places(
    keys: Iterable[str],
    base: BaseLayers,
    *,
    leave_out: Collection[str] = (),
    parameters: Collection[str] = (),
) -> Places:
    """Sort the tensors of an adapter's file.

    Args:
        keys: their names.
        base: where they are to fit.
        leave_out: names of layers, or ends of them, that are passed over: `lm_head`.
        parameters: ends of the paths of bare weights that the adapter is on.
    """
    found = dict[str, Place]()
    left_out, differences = list[str](), list[str]()
    for key in keys:
        match = None
        if len(key) <= _MAX_KEY_LENGTH:
            match = _KEY.fullmatch(key, _PREFIX.match(key).end())  # pyright: ignore[reportOptionalMemberAccess]
        own = match and (_fused(match[1], base, parameters) or match[1])
        if is_left_out(key, leave_out) or (own and is_left_out(own, leave_out)):
            left_out.append(key)
            continue
        if match is None or own is None:
            why = next((why for part, why in _REASONS.items() if part in key), None)
            differences.append(
                f"the tensor {show(key)} is no lora_A or lora_B weight"
                + (f" ({why})" if why else "")
            )
            continue
        path = base.fitted(own)
        place = found.setdefault(path, Place(path, own, is_fused=own != match[1]))
        if match[2] in place.keys:
            differences.append(
                f"the tensors {show(place.keys[match[2]])} and {show(key)} are of one layer"
            )
        place.keys[match[2]] = key
    return Places(dict(sorted(found.items())), tuple(left_out), differences)


def fused_keys(paths: Iterable[str]) -> dict[str, str]:
    """What PEFT calls the layer around each of these weights of fused experts, by path."""
    modules = dict[str, list[str]]()
    for path in sorted(paths, key=lambda one: FUSED.index(one.rpartition(".")[2])):
        modules.setdefault(path.rpartition(".")[0], []).append(path)
    return {
        path: module + _INNER * depth
        for module, its in modules.items()
        for depth, path in enumerate(reversed(its))
    }


def is_named(path: str, names: Collection[str]) -> bool:
    """Whether a path ends in one of these names."""
    return any(end in names for end in ends(path))


def _fused(path: str, base: BaseLayers, parameters: Collection[str]) -> str | None:
    """The weight of fused experts that PEFT's layer of this path is around."""
    module = path
    while module.endswith(_INNER):
        module = module.removesuffix(_INNER)
    weights = (f"{module}.{name}" for name in FUSED)
    named = [one for one in weights if base.is_fused(one) and is_named(one, parameters)]
    return {layer: weight for weight, layer in fused_keys(named).items()}.get(path)


def is_left_out(path: str, leave_out: Collection[str]) -> bool:
    """Whether a path has one of these names, as one or several of its parts."""
    return any(f".{name}." in f".{path}." for name in leave_out)
