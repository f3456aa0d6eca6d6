"""llama.cpp's GGUF file of a LoRA, read back: q and k in transformers' order again."""

from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor

from lmoe_studio.base_models import BaseIdentity
from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.formats.source import AdapterSource, Format, as_peft, is_number, pairs
from lmoe_studio.experts.gguf_lora import as_in_transformers, gguf_names
from lmoe_studio.experts.safetensors_check import open_regular, require_size, show
from lmoe_studio.experts.safetensors_load import check_values

_MAX_BYTES = 2 << 30
_MAX_FIELDS = 1000
_ALORA = "adapter.alora.invocation_tokens"


def _fits(place: Path) -> bool:
    return _file(place) is not None


def _file(place: Path) -> Path | None:
    if place.is_dir():
        inside = [path for path in place.iterdir() if path.suffix.lower() == ".gguf"]
        return inside[0] if len(inside) == 1 else None
    return place if place.suffix.lower() == ".gguf" else None


def _read(place: Path, base: BaseIdentity) -> AdapterSource:
    file = _file(place)
    assert file is not None
    fields, tensors = _contents(file)
    kind, architecture = fields.get("general.type"), fields.get("general.architecture")
    if kind != "adapter" or fields.get("adapter.type") != "lora" or _ALORA in fields:
        raise AdapterError(
            f"{file.name} is a GGUF file of the kind {show(kind)} where a LoRA adapter was expected, "
            "as convert_lora_to_gguf.py writes it; give the adapter's file."
        )
    own, names = gguf_names(base.linear_shapes or (), base.config)
    if architecture != own:
        raise AdapterError(
            f"{file.name} is a LoRA for a {show(architecture)} model where {show(own)} was expected, "
            "as GGUF calls this base model; give the adapter of this base model."
        )
    paths = {name: path for path, name in names.items()}
    sides, others = dict[str, dict[str, Tensor]](), dict[str, Tensor]()
    for key, tensor in tensors.items():
        layer, _, side = key.removesuffix(".weight").rpartition(".lora_")
        path = paths.get(layer)
        if path is None or side not in ("a", "b"):
            others[key] = tensor
        else:
            part = as_in_transformers(tensor, path, own, base.config) if side == "b" else tensor
            sides.setdefault(path, {})[side.upper()] = part
    alpha = fields.get("adapter.lora.alpha")
    alpha = float(alpha) if is_number(alpha) and alpha else None
    factors = {
        path: (a, b, 1.0 if alpha is None else alpha / len(a))  # as llama.cpp has it
        for path, (a, b) in pairs(sides, file.name).items()
    }
    return as_peft(factors, file.name, others=others)


def _contents(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fields and tensors. Whatever the library stumbles over in a damaged file is one sentence."""
    with open_regular(file) as opened:
        require_size(opened, file.name, _MAX_BYTES)
        start = opened.read(24)
    counts = int.from_bytes(start[8:16], "little"), int.from_bytes(start[16:24], "little")
    try:
        if start[:4] != b"GGUF" or len(start) < 24 or max(counts) > 10 * _MAX_FIELDS:
            raise ValueError
        reader = gguf.GGUFReader(file)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {
            tensor.name: torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
            for tensor in reader.tensors
        }
    except Exception:  # of any kind: the library trusts its file
        raise AdapterError(f"{file.name} is no sound GGUF file; copy the file again.") from None
    check_values(tensors, file.name)
    return fields, tensors


FORMAT = Format("GGUF", _fits, _read)
