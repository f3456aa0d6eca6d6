"""LMoEForCausalLM: what code that knows only transformers does with a bank."""

import copy
import shutil
import subprocess
import sys

import pytest
import torch
from tiny_models import make_bank, make_tiny_base, make_tiny_studio, make_tiny_tokenizer
from tolerances import ONE_PASS
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments, pipeline
from zoo.bases import build

import lmoe_studio as lmoe
from lmoe_studio.errors import BaseMismatchError, BaseModelError, ConfigError, PlanError
from lmoe_studio.experts.files import save_bank
from lmoe_studio.routing.plan import Override, RegexMatch, RoutingPlan, Steps, TextMatch
from lmoe_studio.routing.settings import RouterSettings

SOLO = RoutingPlan([Override.solo("sql")])
WRITTEN = RoutingPlan([Override.solo("sql", tokens="generated")])
BY_TEXT = RoutingPlan([Override.solo("sql", tokens=TextMatch(text="b"))])
PLANS = {
    "none": None,
    "solo": SOLO,
    "written": WRITTEN,
    "prompt": RoutingPlan([Override.ban("sql", tokens="prompt")]),
    "steps": RoutingPlan([Override.solo("math", tokens=Steps(steps=(1, 3)))]),
    "text": BY_TEXT,
    "regex": RoutingPlan([Override.solo("math", tokens=RegexMatch(regex="[a-f ]+"))]),
}


@pytest.fixture
def model():
    base = make_tiny_base()
    return lmoe.attach(base, make_bank(base), tokenizer=make_tiny_tokenizer())


@pytest.fixture
def batch():
    tokenizer = make_tiny_tokenizer()
    tokenizer.padding_side = "left"
    inputs = tokenizer(["a cab", "bad face, bead"], return_tensors="pt", padding=True)
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def greedy(model, batch, plan=None, **options):
    return model.generate(**batch, plan=plan, max_new_tokens=6, do_sample=False, **options)


@pytest.mark.parametrize("name", PLANS)
def test_it_writes_what_the_studio_writes(model, name):
    studio, plan = make_tiny_studio(), PLANS[name]
    made = studio.generate("bad face, bead", plan=plan, max_new_tokens=6)
    prompt = torch.from_numpy(made.trace.token_ids[None, : len(made.trace) - len(made.token_ids)])
    for options in ({}, {"use_cache": False}, {"prefill_chunk_size": 4}):
        found = greedy(model, {"input_ids": prompt}, plan, **options)
        assert found[0, prompt.shape[1] :].tolist() == list(made.token_ids)


@pytest.mark.parametrize("name", PLANS)
def test_a_padded_batch_writes_what_each_prompt_alone_writes(model, batch, name):
    together = greedy(model, batch, PLANS[name])
    for row, ids in enumerate(batch["input_ids"]):
        alone = ids[batch["attention_mask"][row].bool()][None]
        expected = greedy(model, {"input_ids": alone}, PLANS[name])[0, alone.shape[1] :]
        found = together[row, ids.shape[0] :].tolist()  # a text that ended is filled up
        assert found == expected.tolist() + [0] * (6 - len(expected))


def test_each_row_and_its_beams_have_their_own_plan(model, batch):
    plans = [SOLO, WRITTEN]
    beams = greedy(model, batch, plans, num_beams=3, num_return_sequences=3)
    for row, plan in enumerate(plans):
        one = {name: value[row : row + 1] for name, value in batch.items()}
        expected = greedy(model, one, plan, num_beams=3, num_return_sequences=3)
        assert torch.equal(beams[3 * row : 3 * row + 3], expected)


def test_the_pipeline_writes_what_the_studio_writes(model, caplog):
    studio = make_tiny_studio()
    pipe = pipeline("text-generation", model=model, tokenizer=model.tokenizer)

    def written(**options):
        options |= {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}
        return pipe("bad face", **options)[0]["generated_text"]

    assert written() == studio.generate("bad face", max_new_tokens=6).text
    expected = studio.generate("bad face", plan=SOLO, max_new_tokens=6).text
    with model.steered(SOLO):
        assert written() == expected
    assert written(plan=SOLO) == expected
    assert "not supported" not in caplog.text


@pytest.mark.parametrize("name", ["none", "solo", "text"])
def test_log_probabilities_are_those_of_a_trace(model, name):
    trace = make_tiny_studio().trace("bad face, bead", plan=PLANS[name])
    ids = torch.from_numpy(trace.token_ids[None])
    with torch.inference_mode(), model.steered(PLANS[name]):
        scores = model(input_ids=ids).logits.log_softmax(dim=-1)
    found = scores[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(found, torch.tensor(trace.logprobs[1:]), **ONE_PASS)


def test_steering_ends_with_its_block_and_after_an_error(model, batch):
    plain = model(**batch).logits
    with model.steered(SOLO):
        assert not torch.allclose(model(**batch).logits, plain)
        with model.steered(Override.ban("sql")):
            banned = model(**batch).logits
        assert torch.equal(model(**batch, plan=Override.ban("sql")).logits, banned)
        with pytest.raises(IndexError):
            model(input_ids=batch["input_ids"] + 1000)
    assert torch.equal(model(**batch).logits, plain)


def test_what_cannot_be_steered_is_refused(model, batch):
    with pytest.raises(PlanError, match="names no expert of this bank: 'sq'"):
        greedy(model, batch, Override.solo("sq"))
    with pytest.raises(PlanError, match="3 plans came for a batch of 2 rows"):
        greedy(model, batch, [None] * 3)
    with pytest.raises(PlanError, match="beam search"):
        greedy(model, batch, BY_TEXT, num_beams=2)
    model.tokenizer = None
    with pytest.raises(PlanError, match="no tokenizer"):
        greedy(model, batch, BY_TEXT)
    with pytest.raises(PlanError, match="no tokenizer"):
        model(**batch, plan=BY_TEXT)


@pytest.mark.parametrize("plan", [None, SOLO, WRITTEN], ids=["none", "solo", "written"])
def test_beams_take_the_past_of_layers_that_read_it_again(batch, plan):
    base = build("deepseek_v2")
    arrow = RouterSettings(kind="arrow", scope="module")  # each token has weights of its own
    bank = make_bank(base, targets=("q_b_proj", "kv_b_proj"), size=0.4, router=arrow)
    model = lmoe.attach(base, bank, tokenizer=make_tiny_tokenizer())
    options = {"num_beams": 4, "num_return_sequences": 4}
    found = greedy(model, batch, plan, **options)
    assert torch.equal(found, greedy(model, batch, plan, **options, use_cache=False))
    if plan is None:
        own = base.generate(**batch, max_new_tokens=6, do_sample=False, **options)
        assert torch.equal(found, own)


def test_beams_take_along_what_routers_remember(batch):
    base = make_tiny_base()
    bank = make_bank(base, size=0.4, router=RouterSettings(pool="prefix"))
    model = lmoe.attach(base, bank, tokenizer=make_tiny_tokenizer())
    options = {"num_beams": 4, "num_return_sequences": 4}
    found = greedy(model, batch, **options)
    assert torch.equal(found, greedy(model, batch, **options, use_cache=False))


def test_attaching_takes_no_more_than_it_gives_back(batch):
    base = make_tiny_base().requires_grad_(True)
    base.lm_head.weight.requires_grad_(False)
    parameters = dict(base.named_parameters())
    before = {name: one.requires_grad for name, one in parameters.items()}
    plain = base(**batch).logits
    model = lmoe.attach(base, make_bank(base))
    assert any(one.requires_grad for one in model.parameters())
    assert not any(one.requires_grad for one in parameters.values())
    assert torch.equal(base(**batch).logits, model(**batch).logits)
    with pytest.raises(BaseModelError, match="a bank attached already"):
        lmoe.attach(base, make_bank(make_tiny_base()))
    assert lmoe.detach(base) is base
    assert {name: one.requires_grad for name, one in base.named_parameters()} == before
    assert torch.equal(base(**batch).logits, plain)
    with pytest.raises(BaseModelError, match="has no bank attached"):
        lmoe.detach(base)


def test_a_copy_and_another_type_are_models_of_their_own(model, batch):
    with torch.no_grad():
        expected = model(**batch).logits
        other = copy.deepcopy(model)
        assert other.base is not model.base
        assert torch.equal(other(**batch).logits, expected)
        half = copy.deepcopy(model).to(torch.bfloat16)
        assert half.dtype == half(**batch).logits.dtype == torch.bfloat16


def test_the_trainer_trains_and_saves_it(model, tmp_path, batch):
    texts = [model.tokenizer(text) for text in ["bad cab", "face a bead", "dad fed", "abc"] * 2]
    arguments = TrainingArguments(
        tmp_path / "out", max_steps=3, per_device_train_batch_size=2, learning_rate=1e-2,
        save_steps=3, report_to=[], use_cpu=True, disable_tqdm=True, activation_checkpointing=True,
    )  # fmt: skip
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    before = model(**batch).logits.detach()
    collate = DataCollatorForLanguageModeling(model.tokenizer, mlm=False)
    Trainer(model, arguments, data_collator=collate, train_dataset=texts).train()
    model.eval()
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
    after = model(**batch).logits.detach()
    assert not torch.allclose(after, before, atol=1e-4)
    again = lmoe.LMoEForCausalLM.from_pretrained(
        tmp_path / "out" / "checkpoint-3", base_model=make_tiny_base()
    )
    assert torch.equal(again(**batch).logits, after)


@pytest.mark.parametrize("how", ["resumed", "best"])
def test_the_trainer_goes_on_from_its_checkpoint(model, tmp_path, how, caplog):
    """As if it had not been interrupted; and takes the best one back at the end."""
    texts = [model.tokenizer(text) for text in ["bad cab", "face a bead", "dad fed", "abc"] * 2]
    collate = DataCollatorForLanguageModeling(model.tokenizer, mlm=False)
    start = model.bank

    def trainer(own, out, **options):
        arguments = TrainingArguments(
            out, per_device_train_batch_size=2, learning_rate=1e-2, save_steps=2, max_steps=4,
            report_to=[], use_cpu=True, disable_tqdm=True, logging_steps=1, **options,
        )  # fmt: skip
        return Trainer(
            own, arguments, data_collator=collate, train_dataset=texts, eval_dataset=texts
        )

    trainer(model, tmp_path / "whole").train()
    again = lmoe.attach(make_tiny_base(), start, tokenizer=make_tiny_tokenizer())
    if how == "resumed":
        shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "half" / "checkpoint-2")
        trainer(again, tmp_path / "half").train(resume_from_checkpoint=True)
        expected = model
    else:
        best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2}
        best |= {"metric_for_best_model": "loss", "greater_is_better": True}  # the first, that is
        trainer(again, tmp_path / "half", **best).train()
        expected = lmoe.LMoEForCausalLM.from_pretrained(
            tmp_path / "whole" / "checkpoint-2", base_model=make_tiny_base()
        )
    assert "keys in the checkpoint" not in caplog.text
    found = dict(again.named_parameters())
    for name, one in expected.named_parameters():
        assert torch.equal(found[name], one), name


def test_what_is_saved_is_loaded_and_leaves_other_files_alone(model, tmp_path, batch):
    make_tiny_base().save_pretrained(tmp_path / "base")
    make_tiny_tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "mine.txt").write_text("mine")
    for _ in range(2):
        model.save_pretrained(tmp_path / "bank")
    assert (tmp_path / "bank" / "mine.txt").read_text() == "mine"
    assert not list((tmp_path / "bank").glob(".*"))
    again = lmoe.LMoEForCausalLM.from_pretrained(
        str(tmp_path / "bank"), base_model=str(tmp_path / "base"), dtype=torch.float32,
        attn_implementation="eager", device_map="cpu",
    )  # fmt: skip
    assert not again.training
    found, expected = (each(**batch).logits[1] for each in (again, model))
    torch.testing.assert_close(found, expected, **ONE_PASS)  # padding may score as it likes
    assert torch.equal(greedy(again, batch), greedy(model, batch))


def test_what_does_not_fit_is_refused_and_the_model_is_as_it_was(tmp_path, batch):
    bank, other = make_bank(make_tiny_base()), make_tiny_base()
    other.lm_head = torch.nn.Linear(32, 260, bias=False)
    plain = other(**batch).logits
    with pytest.raises(BaseMismatchError, match="another architecture"):
        lmoe.attach(other, bank)
    assert torch.equal(other(**batch).logits, plain)
    assert other.lm_head.weight.requires_grad
    with pytest.raises(ConfigError, match="device_map comes too late"):
        lmoe.LMoEForCausalLM.from_pretrained(bank, base_model=make_tiny_base(), device_map="cpu")
    folder = save_bank(bank, tmp_path / "bank")
    shutil.rmtree(folder / "experts" / "sql")
    with pytest.raises(lmoe.LMoEError, match="incomplete"):
        lmoe.attach(make_tiny_base(), folder)


COMPILED = """
import sys, torch
sys.path.insert(0, "tests")
from tiny_models import make_bank, make_tiny_base
import lmoe_studio as lmoe
base = make_tiny_base()
model = lmoe.attach(base, make_bank(base))
compiled = torch.compile(model, backend="aot_eager")
for length in (9, 14):
    ids = torch.arange(10, 10 + length)[None]
    with torch.no_grad():
        gap = compiled(input_ids=ids).logits - model(input_ids=ids).logits
    assert gap.abs().max() < 1e-4, gap.abs().max()
"""


@pytest.mark.parametrize("architecture", ["qwen3_moe", "mixtral"])
def test_a_base_with_fused_experts_keeps_its_way_to_compute_them(architecture, batch):
    base = build(architecture)
    chosen = base.config._experts_implementation
    model = lmoe.attach(base, make_bank(base, targets=("q_proj", "v_proj")))
    assert base.config._experts_implementation == chosen is not None
    with model.steered(SOLO):
        expected = base(**batch).logits
    torch.testing.assert_close(model(**batch, plan=SOLO).logits, expected, **ONE_PASS)


def test_it_can_be_compiled():
    # In a process of its own: the checks of shapes that tests run with cannot be compiled.
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
