"""A place that cannot be written is refused before the work, and a folder that is missing is made."""

import pytest

from lmoe_studio.cli.destination import require_file_place, require_folder_place
from lmoe_studio.errors import StorageError


def test_the_folder_of_a_file_is_made(tmp_path):
    require_file_place(tmp_path / "new" / "er" / "t.csv")
    assert (tmp_path / "new" / "er").is_dir()
    require_folder_place(tmp_path / "later" / "still")
    assert not (tmp_path / "later").exists()


COMMANDS = [
    ["trace", "--text", "x", "--bank", "nowhere", "--out", "FILE.csv"],
    ["generate", "--prompt", "x", "--bank", "nowhere", "--out", "FILE.parquet"],
    ["trace", "--data", "texts.txt", "--bank", "nowhere", "--out", "FILE"],
    ["report", "nowhere", "--out", "FILE.html"],
    ["merge", "nowhere", "--blend", "a=1", "--out", "FILE"],
    ["import", "--base", "nowhere", "--expert", "a=b", "--out", "FILE"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_every_command_that_writes_looks_first(lmoe, tmp_path, command):
    (tmp_path / "file").touch()
    (tmp_path / "texts.txt").write_text("a text")
    inside = command[-1].replace("FILE", str(tmp_path / "file" / "below"))
    data = [str(tmp_path / one) if one == "texts.txt" else one for one in command[:-1]]
    code, _, err = lmoe(*data, inside)
    assert code == 1
    assert "cannot be written" in err
    assert len(err.strip().splitlines()) == 1


LONG = "n" * 300
READING = [
    ["trace", "--data", LONG, "--out", "runs"], ["trace", "--file", LONG], ["eval", "--data", LONG],
    ["generate", "--prompt", "x", "--plan", LONG], ["report", LONG, "--out", "r.html"],
    ["train", LONG], ["jobs", "start", LONG], ["inspect", LONG], ["push", LONG, "a/b"],
]  # fmt: skip


@pytest.mark.parametrize("command", [*COMMANDS, *READING], ids=lambda command: command[0])
def test_a_name_that_is_too_long_is_an_error_in_one_sentence(lmoe, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMOE_HOME", str(tmp_path / "home"))
    (tmp_path / "texts.txt").write_text("a text")
    code, _, err = lmoe(*(one.replace("FILE", LONG) for one in command))
    assert (code, err.startswith("Error: "), len(err.splitlines())) == (1, True, 1), err


def test_a_folder_that_is_there_is_refused_before_anything_is_loaded(lmoe, tmp_path):
    for command in (COMMANDS[-2], COMMANDS[-1]):
        code, _, err = lmoe(*command[:-1], str(tmp_path))
        assert (code, "is there already" in err) == (1, True)


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path):
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(StorageError, match="is a folder; give the name of a file"):
        require_file_place(tmp_path / "t.csv")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="is a file, not a folder"):
        require_folder_place(tmp_path / "file")
