"""The `lmoe` command, run as a person runs it, on a tiny base model in a folder."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from tiny_models import make_bank, make_tiny_base, make_tiny_tokenizer

from lmoe_studio.experts.files import load_bank, save_bank
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


def is_one_sentence(err):
    return (
        err.startswith("Error: ") and len(err.strip().splitlines()) == 1 and "Traceback" not in err
    )


@pytest.mark.parametrize("suffix", [".parquet", ".safetensors", ".csv"])
def test_trace_writes_a_file(lmoe, bank, tmp_path, suffix):
    out = tmp_path / f"trace{suffix}"
    code, stdout, err = lmoe(
        "trace", "--bank", bank, "--text", "hello", "--out", out, "--device", "cpu"
    )
    assert (code, stdout) == (0, "")
    assert "5 × 3 × 3 routing weights" in err
    if suffix == ".csv":
        assert len(pd.read_csv(out)) == 45
    else:
        assert load_trace(out).text == "hello"


def test_trace_without_a_file_prints_a_table(lmoe, bank):
    code, stdout, _ = lmoe("trace", "--bank", bank, "--text", "a[b]", "--device", "cpu")
    assert code == 0
    assert "top expert" in stdout
    assert "[" in stdout


def test_inspect_prints_json_and_a_table(lmoe, bank):
    code, stdout, _ = lmoe("inspect", bank, "--json")
    assert code == 0
    assert [item["name"] for item in json.loads(stdout)["experts"]] == ["sql", "prose", "math"]
    code, stdout, _ = lmoe("inspect", bank)
    assert "prose" in stdout


def test_a_corpus_is_traced_into_a_folder_that_pandas_reads(lmoe, bank, tmp_path):
    data, out = tmp_path / "texts.csv", tmp_path / "runs"
    data.write_text("body,skill\nSELECT 1,sql\nhello,prose\nbye,\n")
    command = ["trace", "--bank", bank, "--data", data, "--text-column", "body",
               "--label-column", "skill", "--out", out, "--device", "cpu"]  # fmt: skip
    code, stdout, err = lmoe(*command)
    assert (code, stdout) == (0, "")
    assert "3 texts, 1 without a label, 16 tokens" in " ".join(err.split())
    frame = pd.read_parquet(out)
    assert len(frame) == 16 * 3 * 3
    assert set(frame["label"].dropna()) == {"sql", "prose"}
    code, _, err = lmoe(*command, "--max-tokens", 2)
    assert code == 1
    assert "max_tokens None, not 2" in err
    code, stdout, err = lmoe("report", out, "--out", tmp_path / "report.html")
    assert code == 0, err
    assert "has the largest share" in stdout
    assert "has the largest share" in (tmp_path / "report.html").read_text()


def test_inspect_prints_the_geometry(lmoe, bank):
    code, stdout, _ = lmoe("inspect", bank, "--geometry", "--json")
    assert code == 0
    geometry = json.loads(stdout)["geometry"]
    assert geometry["cosine"]["sql"]["sql"] == 1
    assert 0 < geometry["effective_rank"]["math"] <= 4
    code, stdout, _ = lmoe("inspect", bank, "--geometry")
    assert "Likeness of the updates" in stdout


def test_import_makes_a_bank_that_can_be_traced(lmoe, base, bank, tmp_path):
    experts = [f"--expert={name}={bank / 'experts' / name}" for name in ("sql", "math")]
    code, _, err = lmoe("import", "--base", base, *experts, "--out", tmp_path / "mine")
    assert code == 0, err
    assert load_bank(tmp_path / "mine").router.kind == "arrow"
    code, _, err = lmoe(
        "trace", "--bank", tmp_path / "mine", "--text", "x", "--out", tmp_path / "t.parquet"
    )
    assert code == 0, err


def test_import_takes_examples_for_a_router_that_goes_by_them(lmoe, base, bank, tmp_path):
    experts = [f"--expert={name}={bank / 'experts' / name}" for name in ("sql", "math")]
    (tmp_path / "sql.txt").write_text("SELECT name FROM users\nDROP TABLE users\n")
    (tmp_path / "math.txt").write_text("two and two is four\n")
    examples = [f"--examples={name}={tmp_path / name}.txt" for name in ("sql", "math", "gone")]
    (tmp_path / "gone.txt").write_text("never read\n")
    code, _, err = lmoe(
        "import", "--base", base, *experts, f"--expert=gone={tmp_path / 'gone'}", "--router", "knn",
        *examples, "--out", tmp_path / "mine",
    )  # fmt: skip
    assert code == 0, err
    assert "Left out: 'gone'" in err
    mine = load_bank(tmp_path / "mine")
    assert (mine.router.kind, len(mine.router_state["layers.0.keys"])) == ("knn", 36)
    assert {one["expert"] for one in mine.training["memory"]} == {"sql", "math"}


def test_train_writes_a_bank(lmoe, base, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps({"text": name * count}) + "\n" for count in (300, 200))
        )
    config = {
        "name": "two", "base": str(base), "out": "two", "steps": 2, "sequence_length": 32, "rank": 2,
        "skills": [{"name": n, "train": [f"{n}.jsonl"]} for n in ("a", "b")], "device": "cpu",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, _, err = lmoe("train", tmp_path / "config.json", "--seed", "3")
    assert code == 0, err
    assert "Held-out loss" in err
    training = load_bank(tmp_path / "two").training
    assert training is not None
    assert training["config"]["seed"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "demmo"], "There is no bank 'demmo'"),
        (["trace", "--bank", "BANK", "--text", "  "], "The text is blank"),
        (["trace", "--bank", "BANK", "--text", "x" * 200], "200 tokens and this model reads at most"),
        (["trace", "--bank", "BANK", "--text", "x", "--out", "t.xlsx"], "end the name in .parquet"),
        (["trace", "--bank", "BANK", "--file", "no-such-file"], "no-such-file cannot be read"),
        (["trace", "--bank", "BANK", "--text", "x", "--device", "warp"], "Device 'warp' is not"),
        (["trace", "--bank", "BANK", "--data", "no-such.jsonl", "--out", "x"], "cannot be read"),
        (["trace", "--bank", "BANK", "--data", "no-such.jsonl"], "--data goes with --out"),
        (["report", "BANK", "--out", "x.html"], "holds no run"),
        (["train", "no-such.yaml"], "no-such.yaml cannot be read"),
        (["import", "--expert", "sql", "--out", "x"], "write NAME=FOLDER"),
        (["import", "--expert", "a=b", "--router", "knn", "--out", "x"], "give --router knn and --ex"),
        (["import", "--expert", "a=b", "--examples", "a=c", "--out", "x"], "give --router knn and"),
        (["import", "--expert", "a=b", "--examples", "a", "--out", "x"], "write NAME=FILE"),
        (["import", "--base", "BASE", "--expert", "a=nowhere", "--out", "x"], "nowhere"),
        (["import", "--base", "no/such-model", "--expert", "a=b", "--out", "x"], "no/such-model"),
        (["trace", "--bank", "BANK", "--base", "smollm2-135m-instruct", "--text", "x"], "another"),
    ],
)  # fmt: skip
def test_a_mistake_ends_in_one_sentence(lmoe, base, bank, arguments, message):
    places = {"BANK": bank, "BASE": base}
    code, stdout, err = lmoe(*(places.get(a, a) for a in arguments))
    assert (code, stdout) == (1, "")
    assert is_one_sentence(err), err
    assert message in err


def test_help_answers_without_importing_torch_or_gradio():
    check = (
        "import sys; from typer.testing import CliRunner; from lmoe_studio.cli import app; "
        "result = CliRunner().invoke(app, ['--help']); assert 'inspect' in result.output; "
        "assert not {'torch', 'gradio', 'transformers'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_importing_the_package_brings_no_gradio():
    check = (
        "import sys, lmoe_studio as lmoe; lmoe.Studio, lmoe.run_training; "
        "assert not {'gradio', 'plotly'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_public_names_are_the_intended_list():
    import lmoe_studio

    assert all(getattr(lmoe_studio, name) is not None for name in lmoe_studio.__all__)
    assert lmoe_studio.__all__ == sorted(lmoe_studio.__all__)
    assert set(lmoe_studio.__all__) == {*lmoe_studio._HOME, "__version__"}


def test_every_command_has_help_with_an_example(lmoe):
    for command in ("app", "trace", "train", "import", "inspect", "report"):
        code, stdout, _ = lmoe(command, "--help")
        assert code == 0
        assert "Example" in stdout
