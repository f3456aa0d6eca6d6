"""An adapter in every format is the adapter that PEFT keeps, number for number, or is refused."""

import json
import math
import random
from contextlib import suppress

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import make_bank, make_tiny_base

from lmoe_studio.base_models import identify
from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.adapter import write_adapter
from lmoe_studio.experts.bank import read_expert
from lmoe_studio.experts.gguf_lora import write_gguf
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors

BASE = make_tiny_base()
IDENTITY = identify(BASE, "tiny")
ADAPTER = make_bank(BASE, ranks=(4,)).experts[0].adapter
MIXED = LoraAdapter(
    {
        path: LoraFactors(one.a[: 2 + n % 3], one.b[:, : 2 + n % 3], 0.5 + n % 4)
        for n, (path, one) in enumerate(ADAPTER.factors.items())
    }
)


def read(place, **options):
    return read_expert("it", place, IDENTITY, **options).adapter


def refused(place):
    with pytest.raises(AdapterError) as caught:
        read(place)
    message = str(caught.value)
    assert message.endswith(".")
    assert ". " not in message
    return message


def assert_same(found, expected):
    assert set(found.factors) == set(expected.factors)
    for path, one in expected.factors.items():
        other = found.factors[path]
        assert torch.equal(other.a, one.a)
        assert torch.equal(other.b, one.b)
        assert math.isclose(other.scale, one.scale, rel_tol=1e-6)


# Each writes an adapter as the tool would. ---------------------------------------------------------


def as_parts(adapter, place):
    write_adapter(adapter, place, base="tiny")
    whole = place / "adapter_model.safetensors"
    tensors = tensors_of(adapter, "base_model.model.{}.lora_{}.weight")
    keys = sorted(tensors)
    for number, part in enumerate((keys[: len(keys) // 2], keys[len(keys) // 2 :]), start=1):
        name = f"adapter_model-0000{number}-of-00002.safetensors"
        save_file({key: tensors[key] for key in part}, place / name)
    whole.unlink()
    (place / f"{whole.name}.index.json").write_text("{}")


def tensors_of(adapter, pattern, sides=("A", "B"), *, turned=False):
    return {
        pattern.format(path, side): (matrix.T if turned else matrix).contiguous()
        for path, one in adapter.factors.items()
        for side, matrix in zip(sides, (one.a, one.b), strict=True)
    }


def as_mlx(adapter, place, **changes):
    place.mkdir()
    save_file(
        tensors_of(adapter, "{}.lora_{}", ("a", "b"), turned=True), place / "adapters.safetensors"
    )
    scale = next(iter(adapter.factors.values())).scale
    fields = {
        "fine_tune_type": "lora", "model": "mlx-community/tiny", "num_layers": 3,
        "lora_parameters": {"rank": 4, "scale": scale, "dropout": 0.0},
    }  # fmt: skip
    (place / "adapter_config.json").write_text(json.dumps(fields | changes))


def as_old_mlx(adapter, place):
    as_mlx(adapter, place, lora_parameters={"rank": 4, "alpha": 16.0, "scale": 0.5})


def alphas(adapter, pattern):
    return {
        pattern.format(path): torch.tensor(one.scale * one.rank)
        for path, one in adapter.factors.items()
    }


def underscored(tensors, prefix):
    """Kohya's keys: the path of the layer with underscores, up to the first dot of ours."""
    found = {}
    for key, tensor in tensors.items():
        path, part = key.split("|")
        found[f"{prefix}{path.replace('.', '_')}.{part}"] = tensor
    return found


def as_kohya(adapter, place, prefix="lora_te_"):
    place.mkdir()
    pairs = tensors_of(adapter, "{}|lora_{}.weight", ("down", "up"))
    save_file(underscored(pairs | alphas(adapter, "{}|alpha"), prefix), place / "last.safetensors")


def as_kohya_of_the_model_without_a_head(adapter, place):
    inside = LoraAdapter(
        {path.removeprefix("model."): one for path, one in adapter.factors.items()}
    )
    as_kohya(inside, place, "lora_te1_")


def as_comfy(adapter, place):
    """Dotted paths and kohya's names of the two matrices."""
    place.mkdir()
    pairs = tensors_of(adapter, "text_encoder.{}.lora_{}.weight", ("down", "up"))
    save_file(pairs | alphas(adapter, "text_encoder.{}.alpha"), place / "x.safetensors")


def as_gguf(adapter, place):
    place.mkdir()
    factors = {  # the scale within, as `lmoe export` has it
        path: LoraFactors(one.a, one.b * one.scale, 1.0) for path, one in adapter.factors.items()
    }
    write_gguf(LoraAdapter(factors), place / "adapter.gguf", BASE.config)


def scaled_within(adapter):
    return LoraAdapter(
        {path: LoraFactors(one.a, one.b * one.scale, 1.0) for path, one in adapter.factors.items()}
    )


EXACT = {
    "parts": (as_parts, MIXED, MIXED),
    "MLX-LM": (as_mlx, ADAPTER, ADAPTER),
    "MLX-LM of the first versions": (as_old_mlx, ADAPTER, ADAPTER),
    "kohya": (as_kohya, MIXED, MIXED),
    "kohya of the model without a head": (as_kohya_of_the_model_without_a_head, MIXED, MIXED),
    "ComfyUI": (as_comfy, MIXED, MIXED),
    "GGUF": (as_gguf, ADAPTER, scaled_within(ADAPTER)),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_another_tool_keeps_is_read_number_for_number(name, tmp_path):
    write, given, expected = EXACT[name]
    write(given, tmp_path / "it")
    assert_same(read(tmp_path / "it"), expected)
    inside = list((tmp_path / "it").iterdir())
    if len(inside) == 1:  # the file itself does too
        assert_same(read(inside[0]), expected)


def test_diffusers_file_without_alphas_has_scale_one(tmp_path):
    save_file(
        tensors_of(ADAPTER, "text_encoder.{}.lora_{}.weight"),
        tmp_path / "pytorch_lora_weights.safetensors",
    )
    found = read(tmp_path)
    assert {one.scale for one in found.factors.values()} == {1.0}


@pytest.mark.parametrize("kind", [gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.Q8_0])
def test_a_gguf_of_fewer_bits_is_what_it_stands_for(kind, tmp_path):
    """As `convert_lora_to_gguf.py --outtype` writes, with llama.cpp's alpha and no permutation."""
    a = torch.randn(4, 32)
    b = torch.randn(32, 32)[:, :4].contiguous()
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    packed = gguf.quantize(a.numpy(), kind)
    writer.add_tensor("blk.0.attn_output.weight.lora_a", packed, raw_dtype=kind)
    writer.add_tensor("blk.0.attn_output.weight.lora_b", np.ascontiguousarray(b.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    one = read(path).factors["model.layers.0.self_attn.o_proj"]

    assert one.scale == 2.0
    assert torch.equal(one.b, b)
    assert np.array_equal(one.a.numpy(), gguf.dequantize(packed, kind))
    assert (one.a - a).abs().max() < 0.05


def test_a_gguf_without_the_permutation_would_be_another_adapter(tmp_path):
    as_gguf(ADAPTER, tmp_path / "it")
    stored = {
        tensor.name: torch.from_numpy(tensor.data.copy())
        for tensor in gguf.GGUFReader(tmp_path / "it" / "adapter.gguf").tensors
    }
    q = scaled_within(ADAPTER).factors["model.layers.0.self_attn.q_proj"]
    v = scaled_within(ADAPTER).factors["model.layers.0.self_attn.v_proj"]
    assert not torch.equal(stored["blk.0.attn_q.weight.lora_b"], q.b)
    assert torch.equal(stored["blk.0.attn_v.weight.lora_b"], v.b)


# Each writes what is no plain LoRA of the base. ----------------------------------------------------


def image_model(place):
    tensors = {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": torch.ones(2, 8)}
    place.mkdir()
    save_file(tensors, place / "style.safetensors")


def diffusers_transformer(place):
    place.mkdir()
    key = "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
    save_file({key: torch.ones(2, 8)}, place / "pytorch_lora_weights.safetensors")


def one_more(write, **tensors):
    def make(place):
        write(ADAPTER, place)
        file = next(place.glob("*.safetensors"))
        from safetensors.torch import load_file

        save_file(load_file(file) | {key.replace("__", "."): t for key, t in tensors.items()}, file)

    return make


def lost_part(place):
    as_parts(ADAPTER, place)
    (place / "adapter_model-00001-of-00002.safetensors").unlink()


def tensor_in_two_parts(place):
    as_parts(ADAPTER, place)
    first = place / "adapter_model-00001-of-00002.safetensors"
    (place / "adapter_model-00002-of-00002.safetensors").write_bytes(first.read_bytes())


def peft_file_alone(place):
    place.mkdir()
    save_file(
        tensors_of(ADAPTER, "base_model.model.{}.lora_{}.weight"), place / "renamed.safetensors"
    )


def whole_gguf_model(place):
    place.mkdir()
    writer = gguf.GGUFWriter(place / "model.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_of_another_architecture(place):
    place.mkdir()
    config = type(BASE.config).from_dict(BASE.config.to_dict())
    config.model_type = "qwen2"
    write_gguf(scaled_within(ADAPTER), place / "qwen.gguf", config)


def raw_gguf(raw):
    def make(place):
        place.mkdir()
        (place / "it.gguf").write_bytes(raw)

    return make


def cut_gguf(place):
    as_gguf(ADAPTER, place)
    file = place / "adapter.gguf"
    file.write_bytes(file.read_bytes()[:-100])


REFUSED = {
    "a part is lost": (lost_part, "00001-of-00002.safetensors is missing"),
    "a tensor in two parts": (tensor_in_two_parts, "which another part has too"),
    "an image model's, kohya": (image_model, "is no expert of a language model"),
    "an image model's, diffusers": (diffusers_transformer, "is no expert of a language model"),
    "kohya with DoRA": (
        one_more(as_kohya, lora_te_x__dora_scale=torch.ones(2)), "which belongs to DoRA",
    ),
    "kohya, LoKr": (one_more(as_kohya, lora_te_x__lokr_w1=torch.ones(2, 2)), "LoKr"),
    "kohya, alpha below 0": (
        one_more(
            as_kohya, lora_te_model_layers_0_mlp_up_proj__alpha=torch.tensor(-1.0)
        ),
        "scales 'model.layers.0.mlp.up_proj' by -0.25",
    ),
    "PEFT's file without its configuration": (peft_file_alone, "nothing that says how it is scaled"),
    "MLX-LM, DoRA": (
        lambda place: as_mlx(ADAPTER, place, fine_tune_type="dora"), "'dora' in the field",
    ),
    "MLX-LM, all weights": (
        lambda place: as_mlx(ADAPTER, place, fine_tune_type="full"), "'full' in the field",
    ),
    "MLX-LM without a scale": (
        lambda place: as_mlx(ADAPTER, place, lora_parameters={"rank": 4}), "where a number 'scale'",
    ),
    "MLX-LM, fused experts": (
        one_more(as_mlx, model__layers__0__switch_mlp__up_proj__lora_a=torch.ones(2, 3, 4)),
        "'model.layers.0.switch_mlp.up_proj.lora_a' is no lora_A",
    ),
    "MLX-LM, embedding": (
        one_more(
            as_mlx,
            model__embed_tokens__lora_a=torch.ones(259, 4),
            model__embed_tokens__lora_b=torch.ones(4, 32),
        ),
        "no linear layer 'model.embed_tokens'",
    ),
    "a whole GGUF model": (whole_gguf_model, "where a LoRA adapter was expected"),
    "GGUF of another architecture": (gguf_of_another_architecture, "'qwen2' model where 'llama'"),
    "GGUF that is cut": (cut_gguf, "is no sound GGUF file"),
    "GGUF of nothing": (raw_gguf(b""), "is no sound GGUF file"),
    "GGUF of endless fields": (
        raw_gguf(b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 16), "is no sound GGUF file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_lora_of_this_base_is_one_sentence(name, tmp_path):
    make, says = REFUSED[name]
    make(tmp_path / "it")
    assert says in refused(tmp_path / "it")


def test_a_gguf_file_that_is_damaged_anywhere_is_one_sentence_or_still_an_adapter(tmp_path):
    as_gguf(ADAPTER, tmp_path / "it")
    file = tmp_path / "it" / "adapter.gguf"
    raw = file.read_bytes()
    draw = random.Random(3)
    for _ in range(60):
        changed = bytearray(raw)
        for _ in range(draw.choice([1, 3])):  # most of them where names and sizes are
            changed[draw.randrange(min(len(raw), 3000))] = draw.randrange(256)
        file.write_bytes(changed[: draw.choice([len(raw), draw.randrange(len(raw))])])
        with suppress(AdapterError):
            read(file)


def test_layers_of_another_format_can_be_left_out(tmp_path):
    fused = torch.ones(2, 3, 4)
    one_more(as_mlx, model__layers__0__switch_mlp__up_proj__lora_a=fused)(tmp_path / "it")
    assert_same(read(tmp_path / "it", leave_out=["switch_mlp"]), ADAPTER)
