"""MLX-LM's folder: adapters.safetensors beside an adapter_config.json of its own.

Its layer computes `x W + scale · (x lora_a) lora_b` with `lora_a` `[d_in, rank]` and `lora_b`
`[rank, d_out]` (`mlx_lm/tuner/lora.py`): the transposes of PEFT's A and B. The first versions had an
`alpha` beside the scale and multiplied by `scale · alpha / rank`.
"""

import re
from pathlib import Path

from torch import Tensor

from lmoe_studio.base_models import BaseIdentity
from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.adapter_config import CONFIG, MAX_CONFIG_BYTES, read_fields
from lmoe_studio.experts.formats.source import (
    AdapterSource,
    Format,
    as_peft,
    is_number,
    pairs,
    read_tensors,
)
from lmoe_studio.experts.safetensors_check import open_regular, show

_WEIGHTS = "adapters.safetensors"
_KEY = re.compile(r"(.+)\.lora_([ab])")


def _fits(place: Path) -> bool:
    return (place / _WEIGHTS).is_file() and (place / CONFIG).is_file()


def _read(place: Path, _: BaseIdentity) -> AdapterSource:
    with open_regular(place / CONFIG) as file:
        fields = read_fields(file.read(MAX_CONFIG_BYTES + 1))
    kind = fields.get("fine_tune_type", "lora")
    if kind != "lora":
        raise AdapterError(
            f"{CONFIG} of MLX-LM has {show(kind)} in the field 'fine_tune_type' where 'lora' was "
            "expected, because only a low-rank update can become an expert; train a LoRA."
        )
    tensors, _metadata = read_tensors(place / _WEIGHTS, axes=(1, 2, 3))
    sides, others = dict[str, dict[str, Tensor]](), dict[str, Tensor]()
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is not None and tensor.ndim == 2:
            sides.setdefault(match[1], {})[match[2].upper()] = tensor.T
        else:  # of the fused experts of a layer, [expert, …], or of DoRA
            others[key] = tensor
    factors = {
        path: (a, b, _scale(fields, len(a))) for path, (a, b) in pairs(sides, _WEIGHTS).items()
    }
    base = fields.get("model")
    return as_peft(factors, _WEIGHTS, others=others, base=base if isinstance(base, str) else None)


def _scale(fields: dict[str, object], rank: int) -> float:
    """Of `scale · B @ A` for a pair of this rank."""
    options = fields.get("lora_parameters")
    options = options if isinstance(options, dict) else {}
    scale, alpha = options.get("scale"), options.get("alpha", rank)
    if not (is_number(scale) and is_number(alpha)):
        raise AdapterError(
            f"{CONFIG} of MLX-LM has {show(options)} in the field 'lora_parameters' where a number "
            "'scale' was expected; copy the file again."
        )
    return scale * alpha / rank


FORMAT = Format("MLX-LM", _fits, _read)
