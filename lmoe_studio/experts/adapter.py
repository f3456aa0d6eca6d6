"""Read and write a LoRA adapter as PEFT stores it: adapter_config.json, adapter_model.safetensors.

An adapter may come from a stranger. Nothing in its folder is run or imported, `adapter_config`
reads its configuration field by field, `safetensors_check` looks at its file before the library
does, and names, shapes and values of its tensors are checked here. PEFT itself is not needed.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from lmoe_studio.errors import AdapterError, StorageError
from lmoe_studio.experts.adapter_config import (
    CONFIG,
    MAX_CONFIG_BYTES,
    AdapterConfig,
    check_config,
    parse_config,
)
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors
from lmoe_studio.experts.safetensors_check import (
    HOW_TO_CONVERT,
    open_regular,
    read_header,
    require_size,
    show,
)
from lmoe_studio.experts.safetensors_load import check_values, load_tensors

WEIGHTS = "adapter_model.safetensors"
MAX_WEIGHTS_BYTES = 8 << 30
MAX_UPDATE_NORM = 1e6
"""Of `scale · b @ a`; those of trained adapters stay below a thousand."""

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_PICKLE_SUFFIXES = {".bin", ".pt", ".pkl", ".ckpt", ".pth"}
_KEY = re.compile(r"base_model\.model\.(\w+(?:\.\w+)*)\.lora_([AB])\.weight", re.ASCII)
_MAX_KEY_LENGTH = 300
_BASE_WEIGHT = "it belongs to the base model; save with save_embedding_layers=False"
_KEY_REASONS = {
    "lora_embedding_": "it adapts an embedding, which all experts share",
    "lora_magnitude_vector": "it belongs to DoRA",
    ".bias": "it is a bias",
    ".base_layer.weight": _BASE_WEIGHT,
    "embed_tokens.weight": _BASE_WEIGHT,
    "modules_to_save": "it replaces a layer of the base model",
}


def read_adapter(
    folder: Path | str,
    shapes: Mapping[str, tuple[int, int]] | None,
    *,
    confirm: Callable[[BufferedReader, str], None] = lambda _, __: None,
) -> LoraAdapter:
    """Reads a PEFT LoRA folder that may come from a stranger.

    Args:
        folder: where adapter_config.json and adapter_model.safetensors are.
        shapes: the weight shape (d_out, d_in) of each linear layer of the base model by its path,
            such as "model.layers.0.self_attn.q_proj"; None where no base model is loaded.
        confirm: is shown each file and its name before the contents are used; raises AdapterError
            for one that is not as it was.

    Returns:
        The adapter with its tensors in float32.

    Raises:
        AdapterError: the folder holds something else than a plain LoRA for this base model.
    """
    folder = Path(folder)
    _require_files(folder)
    with open_regular(folder / CONFIG) as file:
        raw = file.read(MAX_CONFIG_BYTES + 1)
        if len(raw) <= MAX_CONFIG_BYTES:
            confirm(file, CONFIG)
        config = parse_config(raw)
    with open_regular(folder / WEIGHTS) as file:
        require_size(file, WEIGHTS, MAX_WEIGHTS_BYTES)
        header = read_header(file, WEIGHTS)
        paths = _check_layout(header.shapes, config, shapes)
        confirm(file, WEIGHTS)
        tensors = load_tensors(file, header, WEIGHTS)
    factors = {path: _factors(tensors, path, config) for path in paths}
    for path, one in factors.items():
        _check_norm(path, one)
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
    for path, factors in adapter.factors.items():
        for side, matrix in (("A", factors.a), ("B", factors.b)):
            # A copy, because safetensors refuses tensors that share memory.
            copy = matrix.detach().to("cpu", dtype, copy=True)
            if copy.dtype not in _DTYPES:
                known = ", ".join(str(one).removeprefix("torch.") for one in _DTYPES)
                raise AdapterError(
                    f"An adapter is not written in {str(copy.dtype).removeprefix('torch.')}; give "
                    f"one of {known} as dtype."
                )
            tensors[_key(path, side)] = copy.contiguous()
    fields = _config_fields(adapter, base)
    _check_layout(
        {key: tuple(tensor.shape) for key, tensor in tensors.items()}, check_config(fields), None
    )
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


def _require_files(folder: Path) -> None:
    """Both files must be there; where there are others, says what to do."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no path"
        raise AdapterError(
            f"{show(folder.name)} cannot be opened as a folder ({reason.lower()}); expected was "
            f"the folder that holds {CONFIG} and {WEIGHTS}."
        ) from None
    pickles = [name for name in names if Path(name).suffix.lower() in _PICKLE_SUFFIXES]
    if WEIGHTS not in names and pickles:
        raise AdapterError(
            f"The adapter has no {WEIGHTS} but {show(pickles[0])}, a pickle, which can run code "
            f"when it is read; {HOW_TO_CONVERT}."
        )
    for name in (CONFIG, WEIGHTS):
        if name not in names:
            raise AdapterError(
                f"The folder {show(folder.name)} has no {name}; expected was a folder as PEFT's "
                f"save_pretrained writes it."
            )


def _key(path: str, side: str) -> str:
    return f"base_model.model.{path}.lora_{side}.weight"


def _check_layout(
    tensor_shapes: Mapping[str, tuple[int, ...]],
    config: AdapterConfig,
    base_shapes: Mapping[str, tuple[int, int]] | None,
) -> list[str]:
    """Compares names and shapes with the configuration and the base model, before any allocation.

    Returns:
        The module paths that the adapter belongs to.
    """
    paths: set[str] = set()
    differences = []
    for key in tensor_shapes:
        match = _KEY.fullmatch(key) if len(key) <= _MAX_KEY_LENGTH else None
        if match:
            paths.add(match[1])
        else:
            why = next((why for part, why in _KEY_REASONS.items() if part in key), None)
            differences.append(
                f"the tensor {show(key)} is no lora_A or lora_B weight"
                + (f" ({why})" if why else "")
            )
    for path in sorted(paths):
        differences += _module_differences(path, tensor_shapes, config, base_shapes)
    if not paths and not differences:
        differences.append("it holds no lora_A and no lora_B tensor")
    if not differences:
        differences += _missing_modules(paths, config, base_shapes)
    if differences:
        raise AdapterError(_layout_message(differences))
    return sorted(paths)


def _module_differences(
    path: str,
    tensor_shapes: Mapping[str, tuple[int, ...]],
    config: AdapterConfig,
    base_shapes: Mapping[str, tuple[int, int]] | None,
) -> list[str]:
    """What is wrong with the two tensors of one module, if anything."""
    missing = [key for side in "AB" if (key := _key(path, side)) not in tensor_shapes]
    if missing:
        return [f"the tensor {show(missing[0])} is missing although its partner is there"]
    if base_shapes is not None and path not in base_shapes:
        return [f"the base model has no linear layer {show(path)}"]
    if not config.is_target(path):
        return [f"target_modules in {CONFIG} does not name {show(path)}"]
    a, b = tensor_shapes[_key(path, "A")], tensor_shapes[_key(path, "B")]
    d_out, d_in = (b[0], a[1]) if base_shapes is None else base_shapes[path]
    rank = config.rank_of(path)
    if rank > min(d_out, d_in):
        return [
            f"{show(path)} has rank {rank} where its {d_out} x {d_in} weight allows at most "
            f"{min(d_out, d_in)}"
        ]
    return [
        f"the tensor {show(_key(path, side))} has shape {list(came)} where {list(expected)} was "
        f"expected"
        for side, came, expected in (("A", a, (rank, d_in)), ("B", b, (d_out, rank)))
        if came != expected
    ]


def _missing_modules(
    paths: set[str], config: AdapterConfig, base_shapes: Mapping[str, tuple[int, int]] | None
) -> list[str]:
    """Layers that the configuration names and the file leaves out: it may have been cut."""
    if base_shapes is None or config.target_modules is None or config.is_narrowed:
        return []
    return [
        f"the tensor {show(_key(path, 'A'))} is missing although target_modules names its layer"
        for path in base_shapes
        if path not in paths and config.is_target(path)
    ]


def _layout_message(differences: list[str]) -> str:
    more = f"; and {len(differences) - 3:,} more" if len(differences) > 3 else ""
    places = "1 place" if len(differences) == 1 else f"{len(differences):,} places"
    return (
        f"{WEIGHTS} does not fit the base model or its own {CONFIG} in {places}: "
        f"{'; '.join(differences[:3])}{more}; import a plain LoRA adapter of this base model."
    )


def _check_norm(path: str, factors: LoraFactors) -> None:
    """Refuses an update beside which nothing of the base model would count: its outputs overflow."""
    norm = factors.update_norm
    if not norm <= MAX_UPDATE_NORM:
        raise AdapterError(
            f"{WEIGHTS} changes {show(path)} by a matrix of norm {norm:.3g} where at most "
            f"{MAX_UPDATE_NORM:g} was expected; train or export the adapter again."
        )


def _factors(tensors: Mapping[str, Tensor], path: str, config: AdapterConfig) -> LoraFactors:
    a, b = (tensors[_key(path, side)].float().contiguous() for side in "AB")
    return LoraFactors(a=a, b=b, scale=config.scale_of(path))


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
        "target_modules": sorted(factors),
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
