"""An adapter as a GGUF file, which llama.cpp loads beside a base model (`--lora FILE`).

llama.cpp computes `alpha / rank · B A x` with one alpha for the file and the rank of each tensor; an
adapter comes here with its scale in its factors and one rank, so that alpha is the rank. In the
models that llama.cpp calls `llama` the rows of q and k lie in another order than in transformers':
the two halves that rotate together alternate.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from torch import Tensor
from transformers import PreTrainedConfig

from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.lora import LoraAdapter
from lmoe_studio.whole import whole_file

_ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "phi3": gguf.MODEL_ARCH.PHI3,
}
"""By transformers' model type, where a weight is in GGUF what it is there, but for q and k above."""


def write_gguf(adapter: LoraAdapter, path: Path, config: PreTrainedConfig) -> None:
    """Write an adapter of one rank and scale 1 for llama.cpp.

    Args:
        adapter: which.
        path: of the file.
        config: of the base model.

    Raises:
        AdapterError: the base is of an architecture that is not known here, or an adapted layer is
            none of its GGUF tensors.
        OSError: it cannot be written.
    """
    architecture, names = gguf_names(adapter.factors, config)
    tensors = {}
    for module, factors in adapter.factors.items():
        if module not in names or factors.a.ndim > 2:
            raise AdapterError(f"The layer {module} has no name in GGUF; export in format peft.")
        b = _rotated(factors.b.float().cpu(), module, architecture, config, from_gguf=False)
        tensors[f"{names[module]}.lora_a"] = factors.a.float().cpu().numpy()
        tensors[f"{names[module]}.lora_b"] = b.numpy()
    rank = next(iter(adapter.factors.values())).rank
    with whole_file(path) as staged:
        writer = gguf.GGUFWriter(staged, architecture)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
        for name, tensor in tensors.items():
            writer.add_tensor(name, np.ascontiguousarray(tensor))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def gguf_names(paths: Iterable[str], config: PreTrainedConfig | None) -> tuple[str, dict[str, str]]:
    """What GGUF calls an architecture, and those layers that it has a name for, by path.

    Raises:
        AdapterError: the base is of an architecture that is not known here.
    """
    text: Any = config.get_text_config(decoder=True) if config is not None else None
    kind = getattr(text, "model_type", "unknown")
    architecture = _ARCHITECTURES.get(kind)
    if architecture is None:
        raise AdapterError(
            f"Adapters of a {kind} base are no GGUF files here, only those of "
            f"{', '.join(_ARCHITECTURES)}; llama.cpp's own convert_lora_to_gguf.py makes others of "
            "PEFT's folder (export in format peft)."
        )
    names = gguf.get_tensor_name_map(architecture, text.num_hidden_layers)
    found = {path: names.get_name(f"{path}.weight", try_suffixes=(".weight",)) for path in paths}
    known = {path: name for path, name in found.items() if name is not None}
    return gguf.MODEL_ARCH_NAMES[architecture], known


def as_in_transformers(
    b: Tensor, path: str, architecture: str, config: PreTrainedConfig | None
) -> Tensor:
    """B `[d_out, rank]` of a layer, its rows as transformers has them, from the order of GGUF."""
    assert config is not None  # `gguf_names` has refused that
    return _rotated(b, path, architecture, config, from_gguf=True)


def _rotated(
    b: Tensor, path: str, architecture: str, config: PreTrainedConfig, *, from_gguf: bool
) -> Tensor:
    """Rows of q and k from one order of rotary embedding to the other."""
    text: Any = config.get_text_config(decoder=True)
    layer = path.rpartition(".")[2]
    heads = {"q_proj": text.num_attention_heads, "k_proj": text.num_key_value_heads}.get(layer)
    if heads is None or architecture != gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.LLAMA]:
        return b
    if len(b) % (2 * heads):
        return b  # of another base model, as its shape will say
    half = len(b) // heads // 2
    split = (heads, half, 2) if from_gguf else (heads, 2, half)
    return b.reshape(*split, -1).transpose(1, 2).reshape(b.shape)
