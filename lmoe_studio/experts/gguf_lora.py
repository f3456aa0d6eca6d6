"""Write an adapter as a GGUF file, which llama.cpp loads beside a base model (`--lora FILE`).

llama.cpp computes `alpha / rank · B A x` with one alpha for the file and the rank of each tensor; an
adapter comes here with its scale in its factors and one rank, so that alpha is the rank. In the
models that llama.cpp calls `llama` the rows of q and k lie in another order than in transformers':
the two halves that rotate together alternate.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
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
    text: Any = config.get_text_config(decoder=True)
    architecture = _ARCHITECTURES.get(text.model_type)
    if architecture is None:
        raise AdapterError(
            f"Adapters of a {text.model_type} base are not written as GGUF, only those of "
            f"{', '.join(_ARCHITECTURES)}; export in format peft, which llama.cpp's own "
            "convert_lora_to_gguf.py reads."
        )
    names = gguf.get_tensor_name_map(architecture, text.num_hidden_layers)
    tensors = {}
    for module, factors in adapter.factors.items():
        name = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if name is None:
            raise AdapterError(f"The layer {module} has no name in GGUF; export in format peft.")
        b = factors.b.float().cpu().numpy()
        if architecture is gguf.MODEL_ARCH.LLAMA:
            b = _rotated(b, module.rpartition(".")[2], text)
        tensors[f"{name}.lora_a"] = factors.a.float().cpu().numpy()
        tensors[f"{name}.lora_b"] = b
    rank = next(iter(adapter.factors.values())).rank
    with whole_file(path) as staged:
        writer = gguf.GGUFWriter(staged, gguf.MODEL_ARCH_NAMES[architecture])
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
        for name, tensor in tensors.items():
            writer.add_tensor(name, np.ascontiguousarray(tensor))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _rotated(b: NDArray[np.float32], layer: str, config: Any) -> NDArray[np.float32]:
    """Rows of q and k in the order of llama.cpp's rotary embedding."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(layer)
    if heads is None:
        return b
    halves = b.reshape(heads, 2, len(b) // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(b.shape)
