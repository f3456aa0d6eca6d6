"""Read and write a LoRA adapter as PEFT stores it: adapter_config.json, adapter_model.safetensors.

An adapter may come from a stranger. Nothing in its folder is run or imported, `adapter_config`
reads its configuration field by field, `safetensors_check` looks at its file before the library
does, and names, shapes and values of its tensors are checked here. PEFT itself is not needed.
"""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from io import BufferedReader
from math import prod
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from lmoe_studio.errors import AdapterError, StorageError
from lmoe_studio.experts.adapter_config import (
    CONFIG,
    AdapterConfig,
    check_config,
)
from lmoe_studio.experts.adapter_places import (
    BaseLayers,
    Place,
    Places,
    find_places,
    fused_keys,
    is_left_out,
    is_named,
)
from lmoe_studio.experts.formats.peft import WEIGHTS, open_peft
from lmoe_studio.experts.formats.source import AdapterSource
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors, from_peft, to_peft
from lmoe_studio.experts.safetensors_check import show
from lmoe_studio.experts.safetensors_load import check_values

MAX_UPDATE_NORM = 1e6
"""Of `scale · b @ a`; those of trained adapters stay below a thousand."""

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def read_adapter(
    folder: Path | str,
    shapes: Mapping[str, tuple[int, ...]] | None,
    blocks: str | None = None,
    *,
    leave_out: Collection[str] = (),
    confirm: Callable[[BufferedReader, str], None] = lambda _, __: None,
    tell: Callable[[str], None] = lambda _: None,
) -> LoraAdapter:
    """Reads a PEFT LoRA folder that may come from a stranger.

    Args:
        folder: where adapter_config.json and adapter_model.safetensors are.
        shapes: the weight shape (d_out, d_in) of each linear layer of the base model by its path,
            such as "model.layers.0.self_attn.q_proj", and (fused, d_out, d_in) of each weight of fused
            experts; None where no base model is loaded.
        blocks: path of the base model's list of decoder blocks, such as "model.layers"; what lies
            outside is refused. None where that is not known.
        leave_out: names of layers, or of what they lie in, whose part of the adapter is passed
            over: "lm_head", "experts".
        tell: hears what was read otherwise than it stands there, a sentence each.
        confirm: is shown each file and its name before the contents are used; raises AdapterError
            for one that is not as it was.

    Returns:
        The adapter with its tensors in float32.

    Raises:
        AdapterError: the folder holds something else than a plain LoRA for this base model.
    """
    source = open_peft(Path(folder), confirm=confirm)
    return take_adapter(source, BaseLayers(shapes, blocks), leave_out=leave_out, tell=tell)


def take_adapter(
    source: AdapterSource,
    base: BaseLayers,
    *,
    leave_out: Collection[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> LoraAdapter:
    """Check an adapter of any format and read its tensors; see `read_adapter`.

    Args:
        source: what PEFT would have written for it.
        base: the layers of the base model.
        leave_out: names of layers whose part of the adapter is passed over.
        tell: hears what was read otherwise than it stands there, a sentence each.

    Raises:
        AdapterError: it is something else than a plain LoRA for this base model.
    """
    config = check_config(source.fields, leave_out=leave_out)
    with source.open() as stored:
        places = find_places(
            stored.shapes, base, leave_out=leave_out, parameters=config.target_parameters
        )
        _check_layout(stored.shapes, places, config, base, leave_out, source)
        tensors = stored.load()
    factors = {path: _factors(tensors, place, config) for path, place in places.found.items()}
    for path, one in factors.items():
        _check_norm(path, one, source.weights)
    for note in (*source.notes, *config.notes):
        tell(note)
    if places.left_out:
        tell(f"left out as asked: {_examples(places.left_out)}")
    return LoraAdapter(factors, config.base)


def write_adapter(
    adapter: LoraAdapter, folder: Path, *, base: str, dtype: torch.dtype | None = None
) -> None:
    """Writes a folder that `PeftModel.from_pretrained` and `read_adapter` can load.

    Args:
        adapter: the factors to write.
        folder: made if it is missing; the configuration is written last, so that a folder which
            has one is complete.
        base: the name of the base model, for the configuration.
        dtype: float32, float16 or bfloat16; None keeps what the tensors have.

    Raises:
        AdapterError: the adapter breaks a rule that `read_adapter` keeps.
        StorageError: a file cannot be written.
    """
    tensors = {}
    fused = fused_keys(path for path, factors in adapter.factors.items() if factors.a.ndim > 2)
    for path, factors in adapter.factors.items():
        for side, matrix in zip("AB", to_peft(factors), strict=True):
            # A copy, because safetensors refuses tensors that share memory.
            copy = matrix.detach().to("cpu", dtype, copy=True)
            if copy.dtype not in _DTYPES:
                known = ", ".join(str(one).removeprefix("torch.") for one in _DTYPES)
                raise AdapterError(
                    f"An adapter is not written in {str(copy.dtype).removeprefix('torch.')}; give "
                    f"one of {known} as dtype."
                )
            tensors[_key(fused.get(path, path), side)] = copy.contiguous()
    fields = _config_fields(adapter, base)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    config = check_config(fields)
    places = find_places(shapes, BaseLayers(), parameters=config.target_parameters)
    _check_layout(shapes, places, config, BaseLayers())
    check_values(tensors, WEIGHTS)
    for path, factors in adapter.factors.items():
        _check_norm(path, factors)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        (folder / CONFIG).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"The adapter cannot be written to the folder {show(folder.name)} ({error.strerror}); "
            f"check the free space and the permissions."
        ) from None


def _key(path: str, side: str) -> str:
    return f"base_model.model.{path}.lora_{side}.weight"


def _check_layout(
    tensor_shapes: Mapping[str, tuple[int, ...]],
    places: Places,
    config: AdapterConfig,
    base: BaseLayers,
    leave_out: Collection[str] = (),
    source: AdapterSource | None = None,
) -> None:
    """Compares names and shapes with the configuration and the base model, before any allocation."""
    weights, settings = (source.weights, source.settings) if source else (WEIGHTS, CONFIG)
    differences = list(places.differences)
    could_go = [_name_of(place.path) for place in places.found.values() if _is_foreign(place, base)]
    for place in places.found.values():
        differences += _module_differences(place, tensor_shapes, config, base)
    if not places.found and not differences:
        differences.append("it holds no lora_A and no lora_B tensor")
    if not differences:
        differences += _missing_modules(places, config, base, leave_out)
    if differences:
        only_part = 0 < len(could_go) < len(places.found)
        whose = f"the base model or its own {CONFIG}" if settings == CONFIG else "the base model"
        raise AdapterError(
            f"{weights} does not fit {whose} in "
            f"{_listed(differences, sorted(set(could_go)) if only_part else [])}"
        )


def _is_foreign(place: Place, base: BaseLayers) -> bool:
    """Whether the base model has no such layer, or has it where no router is."""
    known = base.shapes is None or place.path in base.shapes
    return not (known and base.is_routed(place.path))


def _name_of(path: str) -> str:
    """What a person would call the layer of a path; `base_layer` is PEFT's word, not a name."""
    return next(part for part in reversed(path.split(".")) if part != "base_layer")


def _module_differences(
    place: Place,
    tensor_shapes: Mapping[str, tuple[int, ...]],
    config: AdapterConfig,
    base: BaseLayers,
) -> list[str]:
    """What is wrong with the two tensors of one module, if anything."""
    if len(place.keys) < 2:
        side = next(side for side in "AB" if side not in place.keys)
        missing = next(iter(place.keys.values())).replace(
            f".lora_{'AB'.replace(side, '')}.", f".lora_{side}."
        )
        return [f"the tensor {show(missing)} is missing although its partner is there"]
    if (len((base.shapes or {}).get(place.path, ())) > 2) != place.is_fused and base.shapes:
        return [
            f"{show(place.own)} holds a matrix for each of several experts, as only PEFT's files do"
        ]
    if base.shapes is not None and place.path not in base.shapes:
        kind = " (it adapts bare weights)" if config.target_parameters else ""
        return [f"the base model has no linear layer {show(place.path)}{kind}"]
    if not base.is_routed(place.path):
        return [f"{show(place.path)} lies outside the decoder blocks and so has no router"]
    if not (config.is_target(place.own) or config.is_target(place.path)):
        return [f"target_modules in {CONFIG} does not name {show(place.own)}"]
    a, b = tensor_shapes[place.keys["A"]], tensor_shapes[place.keys["B"]]
    rank = config.rank_of(place.own)
    fused = max(a[0] // rank, 1) if place.is_fused else 1
    d_out, d_in = b[0], a[1]
    if base.shapes is not None:
        *lead, d_out, d_in = base.shapes[place.path]
        fused = prod(lead)
    ranks = fused * rank
    return [
        f"the tensor {show(place.keys[side])} has shape {list(came)} where {list(expected)} was "
        f"expected"
        for side, came, expected in (("A", a, (ranks, d_in)), ("B", b, (d_out, ranks)))
        if came != expected
    ]


def _missing_modules(
    places: Places, config: AdapterConfig, base: BaseLayers, leave_out: Collection[str]
) -> list[str]:
    """Layers that the configuration names and the file leaves out: it may have been cut."""
    named = dict[str, str]()
    for path, shape in (base.shapes or {}).items():
        if len(shape) > 2 and is_named(path, config.target_parameters):
            named[path] = "target_parameters"
        elif len(shape) == 2 and config.names_all_layers and config.is_target(path):
            named[path] = "target_modules"
    return [
        f"the tensors of {show(path)} are missing although {field} names it"
        for path, field in named.items()
        if path not in places.found and base.is_routed(path) and not is_left_out(path, leave_out)
    ]


def _examples(keys: Sequence[str]) -> str:
    names = sorted({_name_of(key.partition(".lora_")[0].removesuffix(".weight")) for key in keys})
    return f"{', '.join(names)} ({len(keys)} tensors)"


def _listed(differences: list[str], could_go: list[str]) -> str:
    """The first differences, and what could be left out for the rest to fit."""
    more = f"; and {len(differences) - 3:,} more" if len(differences) > 3 else ""
    options = " ".join(f"--leave-out {name}" for name in could_go[:3])
    way = f", or the rest of this one alone ({options}; leave_out in Python)" if options else ""
    places = "1 place" if len(differences) == 1 else f"{len(differences):,} places"
    return f"{places}: {'; '.join(differences[:3])}{more}; import a plain LoRA adapter of this base model{way}."


def _check_norm(path: str, factors: LoraFactors, weights: str = WEIGHTS) -> None:
    """Refuses an update beside which nothing of the base model would count: its outputs overflow."""
    norm = factors.update_norm
    if not norm <= MAX_UPDATE_NORM:
        raise AdapterError(
            f"{weights} changes {show(path)} by a matrix of norm {norm:.3g} where at most "
            f"{MAX_UPDATE_NORM:g} was expected; train or export the adapter again."
        )


def _factors(tensors: Mapping[str, Tensor], place: Place, config: AdapterConfig) -> LoraFactors:
    a, b = (tensors[place.keys[side]].float() for side in "AB")
    scale = config.scale_of(place.own)
    if place.is_fused:
        return from_peft(a, b, scale, len(a) // config.rank_of(place.own))
    return LoraFactors(a.contiguous(), b.contiguous(), scale)


def _config_fields(adapter: LoraAdapter, base: str) -> dict[str, object]:
    """An adapter_config.json that attaches to exactly these modules.

    PEFT takes a name in `target_modules` and in the patterns for the end of a path as well, so
    modules are named by their full paths, and in the patterns, where the first match wins, the
    longest come first.
    """
    factors = adapter.factors
    ranks = {path: factors[path].rank for path in sorted(factors, key=len, reverse=True)}
    alphas = {path: _alpha_of(factors[path]) for path in ranks}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": max(ranks.values(), default=1),
        "lora_alpha": max(alphas.values(), default=1),
        "rank_pattern": ranks if len(set(ranks.values())) > 1 else {},
        "alpha_pattern": alphas if len(set(alphas.values())) > 1 else {},
        "target_modules": sorted(path for path in factors if factors[path].a.ndim == 2),
        "target_parameters": sorted(path for path in factors if factors[path].a.ndim > 2) or None,
        "use_rslora": False,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
    }


def _alpha_of(factors: LoraFactors) -> float:
    """An alpha that divided by the rank gives the scale again, a whole number where one does."""
    alpha = factors.scale * factors.rank
    if not math.isfinite(alpha):
        return alpha  # to be refused with the others that are out of bounds
    candidates = (round(alpha), alpha, math.nextafter(alpha, 0), math.nextafter(alpha, math.inf))
    return next((one for one in candidates if one / factors.rank == factors.scale), alpha)
