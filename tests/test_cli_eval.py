"""`lmoe eval`, run as a person runs it, on a tiny base model in a folder."""

import json
import re

import pytest
from tiny_models import make_bank, make_tiny_base, make_tiny_tokenizer

from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.routing.settings import RouterSettings

ROWS = [
    {"body": "SELECT 1", "skill": "sql"},
    {"body": "hello", "skill": "prose"},
    {"body": "bye", "skill": None},
    {"body": "a text of more than twelve tokens", "skill": "prose"},
]


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    base = tmp_path_factory.mktemp("base")
    make_tiny_base().save_pretrained(base)
    make_tiny_tokenizer().save_pretrained(base)
    made = make_bank(make_tiny_base(), base_id=str(base))
    return save_bank(made, tmp_path_factory.mktemp("banks") / "tiny")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


def test_it_prints_a_table_that_a_pipe_does_not_cut(lmoe, bank, data):
    code, out, err = lmoe(
        "eval", bank, "--data", data, "--text-column", "body", "--label-column", "skill",
        "--max-tokens", 12, "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    names = [re.split(r"\s{2,}", line.strip())[0] for line in out.splitlines() if line.strip()]
    assert names[2:] == [
        "router", "uniform", "base", "only sql", "only prose", "only math",
        "best expert per text", "best expert per token", "tokens",
    ]  # fmt: skip
    assert "…" not in out
    assert "4 texts, 1 of them cut, 1 without a label, 24 tokens" in " ".join(err.split())


def test_json_has_every_loss_and_a_plan_of_ones_own(lmoe, bank, data, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text('{"overrides": [{"operation": "bypass"}]}')
    code, out, err = lmoe(
        "eval", bank, "--data", data, "--text-column", "body", "--label-column", "skill",
        "--plan", plan, "--json", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    values = json.loads(out)
    assert (values["bank"], values["texts"], values["unlabelled"]) == ("random", 4, 1)
    losses = {(row["label"], row["plan"]): row for row in values["losses"]}
    assert {label for label, _ in losses} == {"sql", "prose", None}
    assert losses["sql", "plan"]["loss"] == pytest.approx(losses["sql", "base"]["loss"])
    assert losses["sql", "router"]["tokens"] == 7


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", [], "holds no text"),
        ('{"text": "a"}', [], "two tokens"),
        ('{"text": "ab"}', ["--label-column", "skil"], "no column 'skil'"),
        ('{"text": ', [], "line 1"),
        ('{"text": "ab"}', ["--plan", "missing.json"], "cannot be read"),
    ],
)
def test_bad_data_is_one_sentence(lmoe, bank, tmp_path, content, options, message):
    path = tmp_path / "texts.jsonl"
    path.write_text(content)
    code, out, err = lmoe("eval", bank, "--data", path, "--device", "cpu", *options)
    assert (code, out) == (1, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert err.count("Error: ") == 1


@pytest.mark.parametrize("pool", ["prompt", "prefix"])
def test_losses_of_tokens_that_the_routing_has_seen_are_called_so(lmoe, bank, data, tmp_path, pool):
    base = load_bank(bank).base.id
    pooled = make_bank(make_tiny_base(), base_id=base, router=RouterSettings(pool=pool))
    folder, seen = save_bank(pooled, tmp_path / "pooled"), pool == "prompt"
    options = ["--text-column", "body", "--device", "cpu", "--max-tokens", 12]
    code, _, err = lmoe("eval", folder, "--data", data, *options)
    assert code == 0, err
    assert ("the routing has seen" in " ".join(err.split())) == seen
    code, out, err = lmoe("eval", folder, "--data", data, *options, "--json")
    assert code == 0, err
    assert ("hindsight" in json.loads(out)) == seen
    code, _, err = lmoe("trace", "--bank", folder, "--text", "abc", "--device", "cpu")
    assert code == 0, err
    assert ("the routing has seen" in " ".join(err.split())) == seen
