"""An expert or a blend in the formats of other engines does there what it does here."""

import json

import gguf
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_models import make_bank, make_tiny_base
from tolerances import ONE_PASS

from lmoe_studio.cli import main
from lmoe_studio.errors import AdapterError, BankError, ConfigError, PlanError, StorageError
from lmoe_studio.experts.files import save_bank
from lmoe_studio.experts.gguf_lora import write_gguf
from lmoe_studio.exporting import export_blend
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan

BLENDS = {
    "expert": ("sql", [1, 0, 0]),
    "blend": ({"sql": 0.6, "math": -0.4}, [0.6, 0, -0.4]),
    "plan": (RoutingPlan([Override.blend({"sql": 0.5, "prose": 0.5})]), [0.5, 0.5, 0]),
}


@pytest.fixture
def bank():
    """Ranks and layers differ from expert to expert."""
    return make_bank(make_tiny_base(), ranks=(2, 5, 3), missing=[(0, "k_proj"), (2, "v_proj")])


def live(bank, weights):
    model = MixtureModel(make_tiny_base(), bank)
    ids = torch.arange(5, 20)[None]
    table = torch.tensor(weights).float().expand(1, ids.shape[1], len(model.sites), -1)
    return ids, model(ids, routing_weights=table).logits


@pytest.mark.parametrize("name", BLENDS)
def test_a_peft_folder_has_one_rank_and_does_what_the_blend_does(bank, tmp_path, name):
    blend, weights = BLENDS[name]
    config = make_tiny_base().config
    export_blend(bank, blend, tmp_path / "out", config=config)
    said = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert said["r"] == said["lora_alpha"]
    assert not said.get("rank_pattern")
    assert not said.get("alpha_pattern")
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {t.shape[0] for k, t in tensors.items() if "lora_A" in k} == {said["r"]}
    ids, expected = live(bank, weights)
    peft = PeftModel.from_pretrained(make_tiny_base(), tmp_path / "out").eval()
    torch.testing.assert_close(peft(ids).logits, expected, **ONE_PASS)


@pytest.mark.parametrize("name", BLENDS)
def test_a_gguf_file_holds_the_same_update_in_llama_cpp_s_order(bank, tmp_path, name):
    config = make_tiny_base().config
    blend, _ = BLENDS[name]
    made = export_blend(bank, blend, tmp_path / "out.gguf", form="gguf", config=config)
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == made.rank
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    assert len(tensors) == 2 * len(made.adapter.factors)
    for stem, module, heads in (
        ("blk.1.attn_q", "model.layers.1.self_attn.q_proj", 4),
        ("blk.1.attn_k", "model.layers.1.self_attn.k_proj", 2),
        ("blk.2.ffn_down", "model.layers.2.mlp.down_proj", 0),
    ):
        factors = made.adapter.factors.get(module)
        if factors is None:
            continue
        update = tensors[f"{stem}.weight.lora_b"] @ tensors[f"{stem}.weight.lora_a"]
        expected = (factors.b @ factors.a).numpy()
        if heads:  # pair i of a head: rows i and half + i there, 2i and 2i + 1 in llama.cpp
            half = len(expected) // heads // 2
            rows = [
                h * 2 * half + s * half + i
                for h in range(heads)
                for i in range(half)
                for s in (0, 1)
            ]
            expected = expected[rows]
        np.testing.assert_allclose(update, expected, rtol=0, atol=1e-5)


def test_a_smaller_rank_says_what_is_lost(bank, tmp_path):
    made = export_blend(bank, {"sql": 0.5, "prose": 0.5}, tmp_path / "out", rank=3)
    assert made.rank == 3
    assert 0 < max(made.errors.values()) < 1


def test_what_cannot_be_exported_is_one_sentence_and_nothing_is_written(bank, tmp_path):
    config = make_tiny_base().config
    out = tmp_path / "out"
    for error, words, blend, options in (
        (BankError, "has no expert 'sqll'", "sqll", {}),
        (PlanError, "other engines have one set of weights", RoutingPlan([Override.boost({"sql": 2.0})]), {}),
        (PlanError, "for some tokens only", RoutingPlan([Override.solo("sql", tokens="prompt")]), {}),
        (ConfigError, "not one of peft, gguf", "sql", {"form": "onnx"}),
        (ConfigError, "All weights of the blend are zero", {"sql": 0.0}, {}),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            export_blend(bank, blend, out, config=config, **options)
    config.model_type = "bloom"
    with pytest.raises(AdapterError, match=r"of a bloom base.*export in format peft"):
        export_blend(bank, "sql", out, form="gguf", config=config)
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(StorageError, match="is there already"):
        export_blend(bank, "sql", out)


def test_a_layer_without_a_name_in_gguf_is_named(bank, tmp_path):
    adapter = bank.experts[1].adapter
    adapter.factors["model.layers.0.odd"] = next(iter(adapter.factors.values()))
    with pytest.raises(AdapterError, match=r"model\.layers\.0\.odd has no name in GGUF"):
        write_gguf(adapter, tmp_path / "x.gguf", make_tiny_base().config)
    assert not (tmp_path / "x.gguf").exists()


def test_the_command(bank, tmp_path, monkeypatch, capsys):
    save_bank(bank, tmp_path / "bank")
    start = ["lmoe", "export", str(tmp_path / "bank"), "--out", str(tmp_path / "out")]
    for words, said, code in (
        ([], "Other engines have no router", 1),
        (["--expert", "sql", "--blend", "sql=1"], "give one of", 1),
        (["--blend", "sql=.6,prose=.4"], "rank 7", 0),
    ):
        monkeypatch.setattr("sys.argv", [*start, *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == code
        assert said in " ".join(capsys.readouterr().err.split())
