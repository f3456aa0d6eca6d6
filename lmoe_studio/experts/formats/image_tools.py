"""A lone .safetensors file, as kohya's scripts, ComfyUI and diffusers keep a LoRA.

They are made for image models, whose text encoder is a language model in the newer ones. Kohya
writes the path of a layer with underscores (`lora_te_layers_0_self_attn_q_proj.lora_down.weight`),
diffusers as it is (`text_encoder.layers.0.self_attn.q_proj.lora_A.weight`). The update is
`alpha / rank · up @ down`; without an alpha the scale is 1. What belongs to no layer of the base model
makes the whole file none of this base model.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from lmoe_studio.base_models import BaseIdentity
from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.adapter_config import CONFIG
from lmoe_studio.experts.adapter_places import BaseLayers
from lmoe_studio.experts.formats.peft import WEIGHTS
from lmoe_studio.experts.formats.source import AdapterSource, Format, as_peft, pairs, read_tensors
from lmoe_studio.experts.safetensors_check import show

_PART = re.compile(
    r"(?P<layer>.+?)[._]lora(?:_linear_layer)?[._](?P<part>A|B|down|up)(?:\.default)?\.weight"
    r"|(?P<of>.+)\.alpha",
    re.ASCII,
)
_SIDES = {"A": "A", "down": "A", "B": "B", "up": "B"}
_KOHYA = re.compile(r"lora_(?:(?:te\d*|unet|llm)_)?(\w+)", re.ASCII)
_COMPONENT = re.compile(r"(?:text_encoder(?:_\d)?|diffusion_model|transformer|unet)\.(.+)")
_OTHER_METHODS = {
    "dora_scale": "DoRA", "hada_w1": "LoHa", "lokr_w": "LoKr", "lora_mid": "a LoRA of convolutions",
    "oft_": "OFT", "diff": "a full difference", "lora_magnitude_vector": "DoRA",
}  # fmt: skip


def _fits(place: Path) -> bool:
    return _file(place) is not None


def _file(place: Path) -> Path | None:
    """The only such file of a folder, or the file itself."""
    if place.is_dir():
        inside = [path for path in place.iterdir() if path.suffix.lower() == ".safetensors"]
        return inside[0] if len(inside) == 1 and inside[0].name != WEIGHTS else None
    return place if place.suffix.lower() == ".safetensors" else None


def _read(place: Path, base: BaseIdentity) -> AdapterSource:
    file = _file(place)
    assert file is not None
    tensors, metadata = read_tensors(file, axes=(0, 1, 2, 3, 4))
    if isinstance(metadata, dict) and "lora_adapter_metadata" in metadata:
        _require_plain(str(metadata["lora_adapter_metadata"]), file.name)
    layers = _layers(base)
    sides, alphas, unscaled = dict[str, dict[str, Tensor]](), dict[str, float](), dict[str, str]()
    for key, tensor in tensors.items():
        match = _PART.fullmatch(key)
        if match is None:
            raise AdapterError(_not_a_lora(key, file.name))
        path = _path(match["layer"] or match["of"], layers, base)
        if path is None:
            raise AdapterError(
                f"{file.name} is a LoRA as image tools keep it (kohya, ComfyUI, diffusers), and its "
                f"tensor {show(key)} belongs to no linear layer of this base model; a LoRA of an "
                "image model is no expert of a language model."
            )
        if match["of"]:
            alphas[path] = float(tensor) if tensor.numel() == 1 else float("nan")
        else:
            sides.setdefault(path, {})[_SIDES[match["part"]]] = tensor
            if match["part"] in "AB" and not _COMPONENT.match(key):
                unscaled[path] = key  # a file of PEFT's, without its configuration
    if missing := unscaled.keys() - alphas.keys():
        raise AdapterError(
            f"{file.name} holds the tensor {show(unscaled[min(missing)])} and nothing that says how "
            f"it is scaled; put it into a folder as {WEIGHTS} with its {CONFIG}."
        )
    factors = {
        path: (a, b, alphas.get(path, len(a)) / len(a))
        for path, (a, b) in pairs(sides, file.name).items()
    }
    return as_peft(factors, file.name)


def _not_a_lora(key: str, name: str) -> str:
    kind = next((kind for part, kind in _OTHER_METHODS.items() if part in key), None)
    what = f"belongs to {kind}" if kind else "is no lora_down or lora_up, lora_A or lora_B"
    return (
        f"{name} holds the tensor {show(key)}, which {what}; expected was an adapter in PEFT's folder "
        "with its adapter_config.json, or a plain LoRA of this base model as kohya's scripts write it."
    )


def _require_plain(said: str, name: str) -> None:
    """Diffusers keeps PEFT's configuration in the file; where it scales, the scale is not 1."""
    if re.search(r'"[\w.]*(?:lora_alpha|alpha_pattern|rank_pattern|use_rslora|use_dora)"', said):
        raise AdapterError(
            f"{name} keeps its scale in the field 'lora_adapter_metadata' of diffusers, which is not "
            "read here; save the adapter with PEFT's save_pretrained."
        )


def _layers(base: BaseIdentity) -> Mapping[str, str]:
    """Paths of the base model's layers by every name with underscores that is one layer's only."""
    found = dict[str, str | None]()
    for path in base.linear_shapes or ():
        for name in _spellings(path, base.blocks):
            key = name.replace(".", "_")
            found[key] = path if found.get(key, path) == path else None
    return {key: path for key, path in found.items() if path is not None}


def _spellings(path: str, blocks: str | None) -> Iterator[str]:
    """A layer's path in the whole model, in the one without its head, and among the blocks."""
    yield path
    if blocks is not None and path.startswith(f"{blocks}."):
        own = blocks.rpartition(".")[2]
        inside = own + path.removeprefix(blocks)
        yield inside
        yield f"model.{inside}"


def _path(layer: str, layers: Mapping[str, str], base: BaseIdentity) -> str | None:
    """The base model's path of a layer as such a file names it."""
    if match := _KOHYA.fullmatch(layer):
        return layers.get(match[1])
    dotted = _COMPONENT.sub(r"\1", layer)
    known = base.linear_shapes or {}
    fitted = BaseLayers(known, base.blocks).fitted(dotted)
    return fitted if fitted in known else None


FORMAT = Format("kohya and diffusers", _fits, _read)
