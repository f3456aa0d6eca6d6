"""What is compared does what its name says, over one base that stays as it is."""

import pytest
import torch
from tapes import Tape

from benchmarks.speed.bases import twin
from benchmarks.speed.cases import Unrouted, replaying
from benchmarks.speed.rows import BASE, rows_of
from benchmarks.speed.variants import Variants


@pytest.fixture(scope="module")
def variants():
    return Variants("tiny", "cpu")


@pytest.fixture(scope="module")
def tokens():
    return torch.arange(1, 20)[None]


@torch.inference_mode()
def logits(model, tokens):
    return model(input_ids=tokens, use_cache=False).logits


def adapter_size(model, variants):
    base = {id(p) for p in variants.base.model.parameters()}
    return sum(p.numel() for p in model.parameters() if id(p) not in base)


def test_every_variant_changes_what_the_base_says_and_leaves_the_base_alone(variants, tokens):
    before = logits(variants.base.model, tokens)
    adapted = {
        "lora": variants.lora(16),
        "xlora": variants.xlora(8, 2),
        "arrow": variants.arrow(8, 2),
        "output": variants.lmoe(8, 2).model,
        "factor": variants.lmoe(8, 2, "factor").model,
        "folded": variants.folded_lmoe(8, 2).model,
    }
    for name, model in adapted.items():
        assert not torch.allclose(logits(model, tokens), before, atol=1e-6), name
    assert torch.equal(logits(variants.base.model, tokens), before)


def test_all_share_the_weights_of_the_base(variants):
    own = {p.data_ptr() for p in variants.base.model.parameters()}
    for model in (variants.lora(16), variants.xlora(8, 2), variants.lmoe(8, 2).model):
        assert own <= {p.data_ptr() for p in model.parameters()}
    assert {p.data_ptr() for p in twin(variants.base.model).parameters()} == own


def test_experts_are_as_large_as_the_lora_that_they_are_held_against(variants):
    studio = variants.lmoe(8, 2)
    experts = sum(expert.adapter.num_parameters for expert in studio.bank.experts)
    assert adapter_size(variants.lora(16), variants) == experts


def test_only_what_a_method_learns_is_trained(variants):
    def trained(model):
        return {name for name, p in model.named_parameters() if p.requires_grad}

    assert all("lora_" in name for name in trained(variants.lora(16, train=True)))
    xlora = trained(variants.xlora(8, 2, train=True))
    assert any("lora_" in name for name in xlora)
    assert any("xlora_classifier" in name for name in xlora)
    ours = trained(variants.trained_lmoe(8, 2))
    assert any("lora_a" in name for name in ours)
    assert any(name.startswith("routers.") for name in ours)
    assert not any("embed_tokens" in name or ".base.weight" in name for name in xlora | ours)


def test_a_group_of_rows_keeps_its_variants_and_the_next_one_does_not(variants):
    variants.keep_for("decode")
    lora = variants.lora(16)
    variants.keep_for("decode")
    assert variants.lora(16) is lora
    variants.keep_for("trace")
    assert variants.lora(16) is not lora


@pytest.mark.slow
@pytest.mark.parametrize("key", [row.key for row in rows_of("tiny")])
def test_every_case_of_every_row_runs(variants, key):
    row = next(row for row in rows_of("tiny") if row.key == key)
    variants.keep_for(row.group)
    entries = row.entries(variants)
    assert {entry.against for entry in entries.values()} <= set(entries)
    for entry in entries.values():
        case = entry.build()
        case.run(case.prepare())
    if row.group in ("forward", "decode", "generate", "trace"):
        assert BASE in entries


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_every_case_of_every_row_runs_on_a_gpu():
    variants = Variants("tiny", "cuda")
    for row in rows_of("tiny", "cuda"):
        variants.keep_for(row.group)
        for entry in row.entries(variants).values():
            case = entry.build()
            case.run(case.prepare())


def test_captured_steps_write_what_the_plain_loop_writes(variants, tokens):
    model = variants.base.model
    for one in (Unrouted(model), variants.lmoe(8, 2).model):
        case = replaying(one, tokens, replayable=Tape)
        steps, token = case.prepare()
        with torch.inference_mode():
            for _ in range(3):
                token = steps.read(token, [None]).logits.argmax(dim=-1)
            text, plain = tokens, None
            for _ in range(6):
                plain = one(text, logits_to_keep=1).logits.argmax(dim=-1)
                text = torch.cat([text, plain], dim=1)
        assert torch.equal(token, plain)
