"""Adapters are read as PEFT reads them, and PEFT reads what we write."""

import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.other import get_pattern_key
from transformers import LlamaConfig, LlamaForCausalLM

from lmoe_studio.errors import AdapterError, StorageError
from lmoe_studio.experts import adapter, adapter_config, safetensors_check
from lmoe_studio.experts.adapter import read_adapter, write_adapter
from lmoe_studio.experts.adapter_config import check_config
from lmoe_studio.experts.formats import image_tools, mlx, peft as peft_folder, source
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

Q0 = "model.layers.0.self_attn.q_proj"
GATE1 = "model.layers.1.mlp.gate_proj"


def tiny_llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, vocab_size=64,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def linear_shapes(model):
    return {
        path: (module.out_features, module.in_features)
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


SHAPES = linear_shapes(tiny_llama())


def peft_layers(peft_model) -> dict[str, Any]:
    return {
        name.removeprefix("base_model.model."): module
        for name, module in peft_model.named_modules()
        if isinstance(module, LoraLayer)
    }


def assert_same_as_peft(adapter, peft_model):
    layers = peft_layers(peft_model)
    assert set(adapter.factors) == set(layers)
    for path, layer in layers.items():
        factors = adapter.factors[path]
        assert factors.scale == layer.scaling["default"]
        assert torch.equal(factors.a, layer.lora_A["default"].weight)
        assert torch.equal(factors.b, layer.lora_B["default"].weight)
        delta = factors.scale * factors.b @ factors.a
        torch.testing.assert_close(delta, layer.get_delta_weight("default"))


# In alphabetical order, because that is how PEFT saves them and the first match wins.
PATTERNS = {
    "rank_pattern": {"^" + Q0: 3, "layers.1.mlp.gate_proj": 2, "mlp.gate_proj": 7, "q_proj": 6},
    "alpha_pattern": {"model.layers.1.mlp.gate_proj": 1.5, "self_attn.q_proj": 5},
}
PEFT_CONFIGS = {
    "plain": {"r": 4, "lora_alpha": 8},
    "rank-stabilised": {"r": 6, "lora_alpha": 16, "use_rslora": True},
    "patterns": {"r": 4, "lora_alpha": 8, **PATTERNS},
    "rank-stabilised patterns": {"r": 4, "lora_alpha": 8, "use_rslora": True, **PATTERNS},
    "some layers": {"layers_to_transform": [1, 3], "layers_pattern": "layers"},
    "but for some": {"exclude_modules": ["layers.2.self_attn.q_proj"]},
    "all linear": {"target_modules": "all-linear"},
    "regular expression": {"target_modules": r".*layers\.(0|2)\.(mlp|self_attn)\..*_proj"},
    "full paths": {"target_modules": [path for path in SHAPES if path not in ("lm_head", Q0)]},
    "no task": {"task_type": None},
    "fractional alpha": {"r": 3, "lora_alpha": 2.5},
    "lm_head": {"target_modules": ["lm_head"]},
    "rank above the width": {"r": 40, "lora_alpha": 8, "target_modules": ["k_proj"]},
    "patterns that are regular expressions": {
        "rank_pattern": {r".*\.gate_proj": 3, r"layers\.[01]\..*q_proj": 5, "q_proj": 2},
        "alpha_pattern": {r".*layers\.(1|2)\..*": 5},
    },
}


@pytest.mark.parametrize("name", PEFT_CONFIGS)
def test_an_adapter_written_by_peft_is_read_as_peft_reads_it(name, tmp_path):
    torch.manual_seed(1)
    options = {"target_modules": ["q_proj", "gate_proj"], "task_type": "CAUSAL_LM"}
    options |= PEFT_CONFIGS[name]
    trained = get_peft_model(tiny_llama(), LoraConfig(**options, init_lora_weights=False))
    trained.save_pretrained(tmp_path, save_embedding_layers=False)

    assert_same_as_peft(read_adapter(tmp_path, SHAPES), trained)
    assert_same_as_peft(read_adapter(str(tmp_path), None), trained)


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_weights_of_the_base_model_in_an_adapter_are_refused(tmp_path):
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["lm_head"]))
    model.save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match=r"lm_head.base_layer.*save_embedding_layers=False"):
        read_adapter(tmp_path, SHAPES)


def test_a_bfloat16_adapter_is_read_in_float32(tmp_path):
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    model.to(torch.bfloat16).save_pretrained(tmp_path)

    factors = read_adapter(tmp_path, SHAPES).factors[Q0]

    assert factors.a.dtype == factors.b.dtype == torch.float32
    assert torch.equal(factors.a, peft_layers(model)[Q0].lora_A["default"].weight.float())


OLD_FIELDS = {
    "0.10": {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": "a/b",
        "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
        "init_lora_weights": True, "layer_replication": None, "layers_pattern": None,
        "layers_to_transform": None, "loftq_config": {}, "lora_alpha": 16, "lora_dropout": 0.1,
        "megatron_config": None, "megatron_core": "megatron.core", "modules_to_save": None,
        "peft_type": "LORA", "r": 8, "rank_pattern": {}, "revision": "main",
        "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", "use_dora": False,
        "use_rslora": False,
    },
    "0.14": {"eva_config": None, "exclude_modules": None, "lora_bias": False},
    "0.17": {
        "corda_config": None, "qalora_group_size": 16, "target_parameters": None,
        "trainable_token_indices": None, "use_qalora": False,
    },
    "0.19": {
        "alora_invocation_tokens": None, "arrow_config": None, "ensure_weight_tying": False,
        "peft_version": "0.19.1", "lora_ga_config": None, "use_bdlora": None,
    },
    "unsloth": {
        "auto_mapping": {
            "base_model_class": "LlamaForCausalLM", "unsloth_fixed": True,
            "parent_library": "transformers.models.llama.modeling_llama",
        },
    },
}  # fmt: skip


def test_configurations_of_older_versions_are_read():
    fields = {}
    for more in OLD_FIELDS.values():
        fields |= more
        config = check_config(fields)
        assert (config.scale_of("x"), config.base) == (2.0, "a/b")


NAMES = st.sampled_from(["a", "b", "ab", "0", "10"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(".".join)


@given(
    path=PATHS,
    pattern=st.dictionaries(
        st.builds("{}{}".format, st.sampled_from(["", "^"]), PATHS),
        st.integers(1, 9),
        max_size=6,
    ),
)
def test_patterns_match_as_they_do_in_peft(path, pattern):
    fields = {"peft_type": "LORA", "r": 10, "lora_alpha": 10, "rank_pattern": pattern}
    expected = pattern.get(get_pattern_key(pattern.keys(), path), 10)
    assert check_config(fields).rank_of(path) == expected


def random_adapter(paths, *, ranks=(4,), scales=(2.0,), dtype=torch.float32):
    generator = torch.Generator().manual_seed(len(paths))
    factors = {}
    for place, path in enumerate(paths):
        d_out, d_in = SHAPES[path]
        rank = ranks[place % len(ranks)]
        factors[path] = LoraFactors(
            a=torch.randn(rank, d_in, generator=generator).to(dtype),
            b=torch.randn(d_out, rank, generator=generator).to(dtype),
            scale=scales[place % len(scales)],
        )
    return LoraAdapter(factors)


def assert_equal_adapters(one, other):
    assert set(one.factors) == set(other.factors)
    for path, factors in one.factors.items():
        assert torch.equal(factors.a, other.factors[path].a)
        assert torch.equal(factors.b, other.factors[path].b)
        assert factors.scale == other.factors[path].scale


# More than twenty modules, because PEFT then shortens the list of target modules by itself.
WRITTEN = {
    "plain": random_adapter([path for path in SHAPES if path.endswith(("q_proj", "v_proj"))]),
    "one module": random_adapter([GATE1]),
    "some of many": random_adapter([path for path in SHAPES if path not in ("lm_head", Q0, GATE1)]),
    "all": random_adapter(list(SHAPES)),
    "mixed": random_adapter(list(SHAPES)[:-2], ranks=(4, 1, 7), scales=(2.0, 16 / 7, 0.3)),
    "rank-stabilised": random_adapter([Q0, GATE1], ranks=(6,), scales=(16 / math.sqrt(6),)),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_an_adapter_we_write_is_loaded_by_peft(name, tmp_path):
    write_adapter(WRITTEN[name], tmp_path / "new" / "expert", base="org/base")

    loaded = PeftModel.from_pretrained(tiny_llama(), tmp_path / "new" / "expert")

    assert_same_as_peft(WRITTEN[name], loaded)
    again = read_adapter(tmp_path / "new" / "expert", SHAPES)
    assert_equal_adapters(again, WRITTEN[name])
    assert again.base == "org/base"


def test_paths_that_end_alike_keep_their_own_rank(tmp_path):
    factors = {
        path: LoraFactors(a=torch.ones(rank, 8), b=torch.ones(8, rank), scale=1.0)
        for path, rank in {"a.q": 1, "b.a.q": 2, "q": 3, "c.b.a.q": 4}.items()
    }
    write_adapter(LoraAdapter(factors), tmp_path, base="x")

    assert_equal_adapters(read_adapter(tmp_path, None), LoraAdapter(factors))
    pattern = json.loads((tmp_path / "adapter_config.json").read_text())["rank_pattern"]
    assert {path: pattern[get_pattern_key(pattern, path)] for path in factors} == {
        path: one.rank for path, one in factors.items()
    }


@st.composite
def adapters(draw):
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    rslora = draw(st.booleans())
    factors = {}
    for path in draw(st.lists(PATHS, min_size=1, max_size=4, unique=True)):
        d_out, d_in = draw(st.integers(1, 9)), draw(st.integers(1, 9))
        rank = draw(st.integers(1, min(d_out, d_in)))
        alpha = draw(st.one_of(st.integers(1, 512), st.floats(1e-3, 1e3)))
        seed = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
        factors[path] = LoraFactors(
            a=torch.randn(rank, d_in, generator=seed).to(dtype),
            b=torch.randn(rank, d_out, generator=seed).to(dtype).T,
            scale=alpha / (math.sqrt(rank) if rslora else rank),
        )
    return LoraAdapter(factors), dtype


@settings(deadline=None, max_examples=60)
@given(adapters())
def test_writing_and_reading_gives_the_same_adapter(drawn):
    adapter, dtype = drawn
    with tempfile.TemporaryDirectory() as folder:
        write_adapter(adapter, Path(folder), base="x")
        again = read_adapter(folder, None)
    assert set(again.factors) == set(adapter.factors)
    for path, factors in adapter.factors.items():
        found = again.factors[path]
        assert found.a.is_contiguous()
        assert found.b.is_contiguous()
        assert found.a.dtype == torch.float32
        assert torch.equal(found.a.to(dtype), factors.a)
        assert torch.equal(found.b.to(dtype), factors.b)
        # Not every double is some alpha divided by the rank; its neighbour is.
        assert math.isclose(found.scale, factors.scale, rel_tol=3e-16)


def test_weights_are_saved_in_the_dtype_asked_for(tmp_path):
    adapter = random_adapter([Q0])
    write_adapter(adapter, tmp_path, base="x", dtype=torch.bfloat16)
    with pytest.raises(AdapterError, match="not written in float64; give one of float32"):
        write_adapter(adapter, tmp_path / "other", base="x", dtype=torch.float64)
    found = read_adapter(tmp_path, SHAPES).factors[Q0]
    assert torch.equal(found.a, adapter.factors[Q0].a.bfloat16().float())
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 1000


def test_matrices_that_share_memory_can_be_written(tmp_path):
    a, b = torch.randn(2, 32), torch.randn(32, 2)
    shared = {path: LoraFactors(a, b, 1.0) for path in (Q0, Q0.replace("0", "1"))}
    write_adapter(LoraAdapter(shared), tmp_path, base="x")
    assert_equal_adapters(read_adapter(tmp_path, SHAPES), LoraAdapter(shared))


UNWRITABLE = {
    "no module": LoraAdapter({}),
    "scale zero": random_adapter([Q0], scales=(0.0,)),
    "negative scale": random_adapter([Q0], scales=(-1.0,)),
    "scale nan": random_adapter([Q0], scales=(math.nan,)),
    "scale too large": random_adapter([Q0], scales=(1e4,)),
    "rank too large": random_adapter([Q0], ranks=(1025,)),
    "not finite": LoraAdapter({Q0: LoraFactors(torch.ones(1, 4), torch.tensor([[math.inf]]), 1.0)}),
    "name": LoraAdapter({"../x": LoraFactors(torch.ones(1, 4), torch.ones(4, 1), 1.0)}),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_could_not_be_read_back_is_not_written(name, tmp_path):
    with pytest.raises(AdapterError):
        write_adapter(UNWRITABLE[name], tmp_path, base="x")
    assert not list(tmp_path.iterdir())


def test_values_that_float16_cannot_hold_are_not_written(tmp_path):
    factors = LoraFactors(torch.full((1, 4), 65520.0), torch.ones(4, 1), 1.0)
    with pytest.raises(AdapterError, match=r"has the value inf in the tensor .*lora_A"):
        write_adapter(LoraAdapter({Q0: factors}), tmp_path, base="x", dtype=torch.float16)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written to the folder 'expert'"):
        write_adapter(random_adapter([Q0]), tmp_path / "file" / "expert", base="x")


@pytest.mark.parametrize(
    "module", [adapter, adapter_config, safetensors_check, source, peft_folder, mlx, image_tools]
)
def test_reading_imports_nothing_that_runs_code_of_others(module):
    source = Path(module.__file__).read_text()
    imported = set(re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE))
    assert "lmoe_studio" in imported
    assert not imported & {"importlib", "peft", "pickle", "transformers"}


def test_the_tensors_are_no_views_of_the_file(tmp_path):
    write_adapter(random_adapter([Q0]), tmp_path, base="x")
    read_adapter(tmp_path, SHAPES).factors[Q0].a.zero_()
    assert_equal_adapters(read_adapter(tmp_path, SHAPES), random_adapter([Q0]))


def text_part(path):
    return path.replace("model.", "model.language_model.", 1)


@pytest.mark.parametrize("on", ["wrapper", "text model"])
def test_an_adapter_of_the_text_model_fits_the_wrapper_and_the_other_way_round(on, tmp_path):
    trained = random_adapter([Q0, GATE1])
    other = {text_part(path): one for path, one in trained.factors.items()}
    wide = {text_part(path): shape for path, shape in SHAPES.items()}
    wide["model.vision_tower.layers.0.self_attn.q_proj"] = SHAPES[Q0]
    if on == "wrapper":
        write_adapter(trained, tmp_path, base="x")
        found = read_adapter(tmp_path, wide, "model.language_model.layers")
        assert_equal_adapters(found, LoraAdapter(other))
    else:
        write_adapter(LoraAdapter(other), tmp_path, base="x")
        assert_equal_adapters(read_adapter(tmp_path, SHAPES, "model.layers"), trained)


def test_layers_outside_the_blocks_are_left_out_only_where_that_is_asked_for(tmp_path):
    whole = random_adapter([Q0, "lm_head"])
    write_adapter(whole, tmp_path, base="x")
    notes = []

    with pytest.raises(AdapterError, match=r"'lm_head' lies outside.*--leave-out lm_head"):
        read_adapter(tmp_path, SHAPES, "model.layers")
    found = read_adapter(tmp_path, SHAPES, "model.layers", leave_out=["lm_head"], tell=notes.append)

    assert_equal_adapters(found, LoraAdapter({Q0: whole.factors[Q0]}))
    assert notes == ["left out as asked: lm_head (2 tensors)"]


def test_a_field_that_nobody_knows_is_told_of(tmp_path):
    write_adapter(random_adapter([Q0]), tmp_path, base="x")
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trained_by": "a person"}))
    notes = []
    read_adapter(tmp_path, SHAPES, tell=notes.append)
    assert len(notes) == 1
    assert "'a person' in the field 'trained_by'" in notes[0]


def test_layers_saved_whole_can_be_left_out(tmp_path):
    options = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    get_peft_model(tiny_llama(), LoraConfig(**options)).save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match=r"modules_to_save.*--leave-out 'lm_head'"):
        read_adapter(tmp_path, SHAPES, "model.layers")
    found = read_adapter(tmp_path, SHAPES, "model.layers", leave_out=["lm_head"])
    assert {path.rpartition(".")[2] for path in found.factors} == {"q_proj"}
