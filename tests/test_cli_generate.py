"""`lmoe generate` and `lmoe merge`, run as a person runs them, on a tiny base model in a folder."""

import json

import pytest
import torch
from peft import PeftModel
from tiny_models import make_bank, make_tiny_base, make_tiny_tokenizer
from tolerances import ONE_PASS
from transformers import AutoModelForCausalLM

from lmoe_studio.experts.files import save_bank
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.studio import Studio
from lmoe_studio.tracing.files import load_trace


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    make_tiny_base().save_pretrained(folder)
    make_tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bank(base, tmp_path_factory):
    bank = make_bank(make_tiny_base(), base_id=str(base))
    return save_bank(bank, tmp_path_factory.mktemp("banks") / "tiny")


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(RoutingPlan([Override.solo("sql", tokens="generated")]).to_json())
    return path


def test_generate_prints_the_text(lmoe, bank):
    code, stdout, err = lmoe(
        "generate", "--bank", bank, "--prompt", "hello", "--max-new-tokens", 6, "--device", "cpu"
    )
    assert code == 0, err
    assert stdout.endswith("\n")
    assert "6 tokens" in err
    assert "ended by length" in err


def test_generate_prints_json_with_plan_and_seed(lmoe, bank, plan, tmp_path):
    out = tmp_path / "t.parquet"
    line = ["generate", "--bank", bank, "--prompt", "hello", "--plan", plan, "--json", "--seed", 7,
            "--temperature", 1, "--top-p", 0.9, "--max-new-tokens", 6, "--out", out]  # fmt: skip
    code, stdout, err = lmoe(*line)
    assert code == 0, err
    values = json.loads(stdout)
    assert values["seed"] == 7
    assert len(values["token_ids"]) == 6
    assert values["plan"]["overrides"][0]["operation"] == "solo"
    trace = load_trace(out)
    assert trace.seed == 7
    assert trace.generated.sum() == 6
    assert (trace.routing_weights[trace.generated][..., 0] == 1).all()
    out.unlink()
    assert json.loads(lmoe(*line)[1])["token_ids"] == values["token_ids"]


def test_merge_writes_an_adapter_that_plain_peft_loads(lmoe, base, bank, tmp_path):
    out = tmp_path / "blended"
    code, _, err = lmoe("merge", bank, "--blend", "sql=.6,math=.4", "--out", out)
    assert code == 0, err
    assert "rank 8, largest relative error 0" in " ".join(err.split())
    assert "differ from the live blend's by at most" in " ".join(err.split())
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(out))


@pytest.mark.parametrize(
    "line", [["merge"], ["export"], ["export", "--format", "full"]], ids=" ".join
)
def test_the_blend_of_a_prompt_is_written_as_any_other(lmoe, base, bank, tmp_path, line):
    out = tmp_path / "blended"
    code, _, err = lmoe(*line, bank, "--blend-for", "SELECT a", "--out", out)
    assert code == 0, err
    studio = Studio.load(bank, device="cpu")
    ids = torch.arange(3, 12)[None]
    found = AutoModelForCausalLM.from_pretrained(out if "full" in line else base)
    if "full" not in line:
        found = PeftModel.from_pretrained(found, str(out))
    with torch.no_grad():
        expected = studio.model(ids, plan=studio.blend_for("SELECT a")).logits
        torch.testing.assert_close(found(ids).logits, expected, **ONE_PASS)


def test_merge_states_the_error_of_each_module_at_a_low_rank(lmoe, bank, tmp_path):
    out = tmp_path / "low"
    code, _, err = lmoe("merge", bank, "--blend", "sql=.6,math=.4", "--rank", 3, "--out", out)
    assert code == 0, err
    assert "relative error" in err
    assert "layers.0" in err


def test_merge_writes_a_whole_model(lmoe, bank, tmp_path):
    out = tmp_path / "whole"
    code, _, err = lmoe("merge", bank, "--blend", "sql=1", "--full", "--out", out)
    assert code == 0, err
    AutoModelForCausalLM.from_pretrained(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--prompt", " "], "The prompt is blank"),
        (["generate", "--prompt", "x", "--temperature", "0"], "leave the temperature out for greedy"),
        (["generate", "--prompt", "x", "--temperature", "nan"], "temperature"),
        (["generate", "--prompt", "x", "--top-k", "3"], "give a temperature too"),
        (["generate", "--prompt", "x", "--max-new-tokens", "0"], "max_new_tokens"),
        (["generate", "--prompt", "x" * 100], "64 more are to be written"),
        (["generate", "--prompt", "x", "--plan", "no-such.json"], "no-such.json cannot be read"),
        (["generate", "--prompt", "x", "--plan", "VERSION"], "of version 2"),
        (["generate", "--prompt", "x", "--plan", "OTHER"], "no expert of this bank: 'chemistry'"),
        (["generate", "--prompt", "x", "--plan", "BROKEN"], "is not JSON (line 1"),
        (["generate", "--prompt", "x", "--chat"], "has no chat template"),
        (["generate", "--prompt", "x", "--out", "t.xlsx"], "end the name in .parquet"),
        (["merge", "--out", "x"], "Give either --blend"),
        (["merge", "--out", "x", "--blend", "sql=1", "--blend-for", "a"], "Give either --blend"),
        (["merge", "--out", "x", "--blend-for", " "], "The prompt is blank"),
        (["merge", "--out", "x", "--blend", "sql"], "write NAME=WEIGHT"),
        (["merge", "--out", "x", "--blend", "sql=0"], "All weights of the blend are zero"),
        (["merge", "--out", "x", "--blend", "sql=nan"], "weight of 'sql' is nan"),
        (["merge", "--out", "x", "--blend", "sqll=1"], "no expert 'sqll'; did you mean 'sql'"),
        (["merge", "--out", "HERE", "--blend", "sql=1"], "is there already"),
        (["merge", "--out", "x", "--plan", "TOKENS"], "holds for some tokens only"),
    ],
)  # fmt: skip
def test_a_mistake_ends_in_one_sentence(lmoe, bank, plan, tmp_path, arguments, message):
    texts = {
        "VERSION": '{"version": 2, "overrides": []}',
        "OTHER": RoutingPlan([Override.ban("chemistry")]).to_json(),
        "BROKEN": "{",
    }
    places = {"HERE": tmp_path, "TOKENS": plan}
    for name, text in texts.items():
        places[name] = tmp_path / f"{name}.json"
        places[name].write_text(text)
    given = [str(places.get(a, a)) for a in arguments]
    given[1:1] = ["--bank", str(bank)] if given[0] == "generate" else [str(bank)]
    code, stdout, err = lmoe(*given)
    assert (code, stdout) == (1, "")
    assert err.startswith("Error: ")
    assert len(err.strip().splitlines()) == 1, err
    assert message in err


def test_both_commands_have_help_with_an_example(lmoe):
    for command in ("generate", "merge"):
        code, stdout, _ = lmoe(command, "--help")
        assert code == 0
        assert "Example" in stdout
