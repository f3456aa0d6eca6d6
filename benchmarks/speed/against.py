"""Has a commit made a ratio worse than another commit's, on this machine and now?

    python -m benchmarks.speed.against                     # the last tag, or the commit before
    python -m benchmarks.speed.against --base main --only decode,forward/1x64

The other commit gets a work tree of its own. Row after row, it is measured in that one and then in
this one, as `--check` does; what seems worse is measured again in both, and counts if it is so twice.
The exit status is 1 if something has become worse.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.speed.__main__ import CHECKED

HERE = Path(__file__).parents[2]


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="", help="the commit to compare with")
    parser.add_argument("--only", default=",".join(CHECKED), help="rows, as forward/1x64,decode")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="after --, for benchmarks.speed")
    options = parser.parse_args()
    base = options.base or _commit_before()
    print(f"Compared with {_git('log', '-1', '--format=%h %s', base)}", flush=True)
    passed_on = [option for option in options.options if option != "--"]
    with work_tree(base) as tree:
        worse = [row for row in options.only.split(",") if is_worse(row, tree, passed_on)]
    print(f"Worse: {', '.join(worse)}." if worse else "Nothing has become worse.")
    sys.exit(bool(worse))


def is_worse(row: str, tree: Path, options: Sequence[str]) -> bool:
    """Measure a row there and here; twice, if the first time it seems worse here."""
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            before = Path(folder) / "before.json"
            if measure(tree, "--only", row, "--json", str(before), *options):
                print(f"{row} cannot be measured in the other commit, and is passed over.")
                return False
            efforts = [o for o in options if not o.startswith(("--shape", "--device"))]
            if not measure(HERE, "--only", row, "--check", str(before), *efforts):
                return False
    return True


def measure(tree: Path, *options: str) -> int:
    """Run the benchmark of a work tree; gives its exit status."""
    command = [sys.executable, "-m", "benchmarks.speed", *options]
    return subprocess.run(command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}).returncode


@contextmanager
def work_tree(commit: str) -> Iterator[Path]:
    """A commit's files, for a while."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "base"
        _git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _commit_before() -> str:
    """HEAD where there are changes to it; else the last tag before it; else its parent."""
    if _git("status", "--porcelain", "--untracked-files=no"):
        return "HEAD"
    tagged = ["git", "describe", "--tags", "--abbrev=0", "HEAD~1"]
    found = subprocess.run(tagged, cwd=HERE, capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else "HEAD~1"


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(run.stderr.strip())
    return run.stdout.strip()


if __name__ == "__main__":
    main()
