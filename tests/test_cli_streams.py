"""Whatever the streams of a terminal are, no command ends in a traceback, and names are as they are."""

import os
import subprocess
import sys

import pytest
from tiny_models import make_bank, make_tiny_base, make_tiny_tokenizer

from lmoe_studio.experts.files import save_bank

LMOE = f"{sys.executable} -m lmoe_studio"


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base[final]")
    make_tiny_base().save_pretrained(folder)
    make_tiny_tokenizer().save_pretrained(folder)
    bank = make_bank(make_tiny_base(), base_id=str(folder))
    return save_bank(bank, tmp_path_factory.mktemp("banks") / "tiny[b]:smile:[/]")


def shell(line, bank, **environment):
    """Runs a line of a shell; gives (exit status, stdout, stderr)."""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, check=False, timeout=300,
        env={**os.environ, "LMOE": LMOE, "BANK": str(bank)} | environment,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr, done.stderr
    assert b"Exception ignored" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def test_streams_that_are_full_closed_or_left(bank):
    """One process each, all started by one line."""
    ask = "$LMOE train --print-config"
    status, out, err = shell(f"{ask} > /dev/full", bank)
    assert (status, out) == (1, b"")
    assert err == b"Error: stdout cannot be written: No space left on device.\n"
    status, _, err = shell(f"{ask} >&-", bank)
    assert (status, err) == (
        1,
        b"Error: stdout is closed, and the command writes to it; open it.\n",
    )
    status, _, err = shell(f"{ask} | true", bank)
    assert (status, err) == (1, b"")
    status, out, _ = shell(f"{ask} 2>&- <&-", bank)
    assert status == 0
    assert b"learning_rate" in out
    assert shell("$LMOE train nowhere.yaml 2>/dev/full", bank)[0] == 1
    assert shell("$LMOE train nowhere.yaml 2>&-", bank)[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_text_that_an_encoding_lacks_is_replaced(bank, encoding):
    line = '$LMOE trace --bank "$BANK" --text "naïve 東京" --device cpu'
    status, out, err = shell(line, bank, PYTHONIOENCODING=encoding)
    assert status == 0, err
    assert b"top expert" in out
    line = (
        r"printf 'a\xff\xfeb' | $LMOE generate --bank $BANK --max-new-tokens 2 --device cpu --json"
    )
    status, out, err = shell(line, bank, PYTHONIOENCODING=encoding)
    assert status == 0, err
    assert out.startswith(b'{"prompt": "a')


def test_names_are_shown_as_they_are(lmoe, bank, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    code, out, err = lmoe("inspect", bank)
    assert code == 0, err
    assert "base[final]" in out
    folder = tmp_path / "run[final]" / "[red]:tada:[/]"
    code, _, err = lmoe("trace", "--bank", bank, "--text", "x", "--out", folder / "t.parquet")
    assert code == 0, err
    assert f"Wrote {folder / 't.parquet'}: 1 × 3 × 3" in err
    code, _, err = lmoe("inspect", "no[/]bank[red]")
    assert "no[/]bank[red]" in err
    data = tmp_path / "[i]texts.csv"
    data.write_text("text,skill\nSELECT 1,[bold]sql\nhello,[/x]:smile:\n")
    ask = ("eval", bank, "--data", data, "--label-column", "skill", "--device", "cpu")
    code, out, err = lmoe(*ask)
    assert code == 0, err
    assert "[bold]sql" in out
    assert "[/x]:smile:" in out
