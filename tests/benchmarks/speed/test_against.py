"""Two commits, measured in turns: what is worse twice counts, and what is not there is passed over."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.speed import against


@pytest.fixture
def statuses(monkeypatch):
    """Exit statuses of the measurements to come, and which work tree each was made in."""
    coming, made = [], []

    def measure(tree, *options):
        made.append("here" if tree == against.HERE else "there")
        return coming.pop(0)

    monkeypatch.setattr(against, "measure", measure)
    return coming, made


@pytest.mark.parametrize(
    ("exits", "worse", "order"),
    [
        ([0, 0], False, ["there", "here"]),
        ([0, 1, 0, 0], False, ["there", "here"] * 2),
        ([0, 1, 0, 1], True, ["there", "here"] * 2),
        ([2], False, ["there"]),
    ],
)
def test_what_is_worse_twice_counts(statuses, exits, worse, order):
    coming, made = statuses
    coming += exits
    assert against.is_worse("decode", Path("there"), []) is worse
    assert made == order


def test_the_other_commit_has_a_work_tree_for_a_while():
    with against.work_tree("HEAD") as tree:
        assert (tree / "benchmarks" / "speed" / "__main__.py").is_file()
    assert not tree.exists()
    listed = subprocess.run(
        ["git", "worktree", "list"], cwd=against.HERE, capture_output=True, text=True
    )
    assert str(tree) not in listed.stdout


def test_an_unknown_commit_ends_it_with_what_git_says():
    with pytest.raises(SystemExit, match="invalid reference"), against.work_tree("no-such-commit"):
        pass
