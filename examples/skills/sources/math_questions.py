"""Generated mathematics questions with exact answers.

The generators need older versions of NumPy and SymPy than the studio, so they run in a throwaway
environment; see ``make_math_questions.py`` in the folder above for what runs there.
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

from corpus import Document, Pair, digest, held_out
from packages import BuildError

PACKAGES = (
    *("mathematics-dataset", "reasoning-gym", "numpy", "sympy", "mpmath"),
    *("six", "absl-py", "pytz", "python-dateutil"),
)
SCRIPT = Path(__file__).parents[1] / "make_math_questions.py"
# Kinds of question that training never sees: is the skill learnt, or only its forms?
KEPT_BACK = {
    *("algebra__linear_2d", "comparison__closest", "measurement__time"),
    *("numbers__is_factor", "polynomials__expand", "probability__swr_p_level_set"),
}
QUESTIONS_PER_TEXT = 12


def documents(archives: list[Path]) -> Iterator[Document]:
    """One document per dozen questions."""
    common: dict[str, Pair] = {}
    kept_back: dict[str, Pair] = {}
    for kind, pair in _generate(archives):
        (kept_back if kind in KEPT_BACK else common).setdefault(pair.prompt, pair)
    yield from _dozens("common", common, is_kept_back=False)
    yield from _dozens("kept back", kept_back, is_kept_back=True)


def _dozens(name: str, pairs: dict[str, Pair], *, is_kept_back: bool) -> Iterator[Document]:
    """Mix the kinds of question, then group them; what is left of a dozen is dropped."""
    mixed = sorted(pairs.values(), key=lambda pair: digest(pair.prompt))
    for start in range(0, len(mixed) - QUESTIONS_PER_TEXT + 1, QUESTIONS_PER_TEXT):
        dozen = tuple(mixed[start : start + QUESTIONS_PER_TEXT])
        text = "\n\n".join(f"Question: {pair.prompt}\nAnswer: {pair.response}" for pair in dozen)
        group = f"{name} {start}"
        yield Document(group, is_kept_back or held_out(group), (text,), dozen)


def _generate(archives: list[Path]) -> Iterator[tuple[str, Pair]]:
    """Run the generators in an environment that is thrown away afterwards."""
    with tempfile.TemporaryDirectory(prefix="lmoe-math-") as folder:
        python = _environment(Path(folder), archives)
        # Some questions depend on the order of sets of strings; -P keeps this folder, and with
        # it any file named like a module, out of the generators' sight.
        variables = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
        result = subprocess.run(
            [python, "-P", str(SCRIPT), *sorted(KEPT_BACK)],
            env={**variables, "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    if result.returncode:
        raise BuildError(f"the mathematics generators stopped:\n{result.stderr.strip()}")
    for line in result.stdout.splitlines():
        kind, question, answer = json.loads(line)
        yield kind, Pair(question, answer)


def _environment(folder: Path, archives: list[Path]) -> str:
    """A fresh environment with exactly the given wheels; returns its Python."""
    builder = venv.EnvBuilder(with_pip=False)
    builder.create(folder)
    python = str(builder.ensure_directories(folder).env_exe)
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    command += ["--disable-pip-version-check", "--no-index", "--no-deps"]
    command += [str(archive) for archive in archives]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(f"could not set up the mathematics generators:\n{result.stderr.strip()}")
    return python
