"""Writing, steering and merging with the real SmolLM2 and the demo bank."""

import numpy as np
import pytest
import torch
from held_out_texts import TEXTS
from peft import PeftModel

from lmoe_studio.base_models import load_base
from lmoe_studio.routing.plan import Override, RoutingPlan, Span
from lmoe_studio.studio import Studio

pytestmark = [pytest.mark.slow, pytest.mark.real]
PROMPTS = [text[:60] for texts in TEXTS.values() for text in texts][:20]


@pytest.fixture
def studio(demo) -> Studio:
    return demo


@pytest.fixture
def base(real_base_once):
    return real_base_once.model


def greedy(model, tokenizer, prompt, count):
    ids = tokenizer(prompt, return_tensors="pt")
    return model.generate(**ids, max_new_tokens=count, do_sample=False)[0, ids.input_ids.shape[1] :]


@pytest.mark.parametrize(
    "prompts", [PROMPTS[::5], pytest.param(PROMPTS, marks=pytest.mark.release)], ids=["4", "20"]
)
def test_greedy_equals_model_generate(studio, base, prompts):
    bypass = RoutingPlan([Override.bypass()])
    for prompt in prompts:
        made = studio.generate(prompt, plan=bypass, max_new_tokens=8, trace=False)
        theirs = greedy(base, studio.tokenizer, prompt, 8)
        assert list(made.token_ids) == theirs.tolist(), prompt
        assert made.text == studio.tokenizer.decode(theirs, skip_special_tokens=True)


def test_solo_writes_what_the_adapter_in_plain_peft_writes(studio, base, tmp_path):
    result = studio.merge({"sql": 1.0}, tmp_path / "sql")
    assert result.max_difference < 1e-3
    peft = PeftModel.from_pretrained(load_base(device="cpu").model, str(tmp_path / "sql")).eval()
    plan = RoutingPlan([Override.solo("sql")])
    made = studio.generate(PROMPTS[0], plan=plan, max_new_tokens=16, trace=False)
    assert list(made.token_ids) == greedy(peft, studio.tokenizer, PROMPTS[0], 16).tolist()


def test_a_blend_merges_into_one_adapter(studio, tmp_path):
    exact = studio.merge({"sql": 0.6, "french": 0.4}, tmp_path / "exact")
    print(f"exact: rank {exact.rank}, logits differ by {exact.max_difference:.2g}")
    assert exact.max_difference < 1e-3
    assert max(exact.errors.values()) == 0
    low = studio.merge({"sql": 0.6, "french": 0.4}, tmp_path / "low", rank=3)
    print(f"rank 3: error up to {max(low.errors.values()):.3f}, logits {low.max_difference:.2g}")
    assert 0 < max(low.errors.values()) < 1


def test_experts_write_differently_and_one_batch_equals_solo_runs(studio):
    plans = {name: RoutingPlan([Override.solo(name)]) for name in ("sql", "french")}
    plans["late"] = RoutingPlan([Override.solo("sql", layers=Span(start=10), tokens="generated")])
    prompt = "The list of all customers:"
    together = studio.compare(
        prompt, plans, max_new_tokens=12, reference=" SELECT * FROM customers;"
    )
    assert list(together.runs) == ["base", "sql", "french", "late"]
    for name, run in together.runs.items():
        print(f"--- {name} {together.reference_logprobs[name]:.2f}\n{run.text}")
    assert together.divergence("sql", "french") is not None
    for name, plan in plans.items():
        alone = studio.generate(prompt, plan=plan, max_new_tokens=12)
        assert alone.token_ids == together.runs[name].token_ids
        np.testing.assert_allclose(
            alone.trace.routing_weights, together.runs[name].trace.routing_weights, atol=1e-3
        )


def test_a_trace_of_a_generation_replays_to_its_tokens(studio):
    plan = RoutingPlan([Override.boost({"python": 3}, tokens={"regex": r"\w+"})])
    made = studio.generate("def add(a, b):", plan=plan, max_new_tokens=12)
    ids = torch.tensor([made.trace.token_ids.tolist()])
    weights = torch.from_numpy(made.trace.routing_weights)[None]
    with torch.no_grad():
        logits = studio.model(ids, routing_weights=weights).logits[0]
    start = int(np.argmax(made.trace.generated))
    assert logits[start - 1 : -1].argmax(-1).tolist() == list(made.token_ids)
    log_p = logits[:-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    np.testing.assert_allclose(made.trace.logprobs[1:], log_p, atol=1e-3)


def test_chat_uses_the_models_own_template(studio):
    made = studio.generate("Name a colour.", chat=True, max_new_tokens=24)
    assert "<|im_start|>user" in "".join(made.trace.tokens)
    assert "<|im_end|>" not in made.text


def test_sampling_with_a_seed_repeats_and_pieces_are_whole_characters(studio):
    options = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.95, "seed": 4}
    pieces = list(studio.stream("日本の🎉", **options))
    assert "�" not in "".join(piece.new_text for piece in pieces[:-1])
    assert pieces[-1].generation.token_ids == studio.generate("日本の🎉", **options).token_ids
