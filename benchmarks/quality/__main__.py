"""Is a mixture better than one LoRA? Trains, measures, and writes docs/quality.md.

    python -m benchmarks.quality --data data/skills --work runs/quality

What is in the folder already is not done again, so a run that was stopped goes on.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.quality.document import document
from benchmarks.quality.results import collect
from benchmarks.quality.rows import (
    ABLATIONS,
    FACTOR,
    FREE,
    LORAS,
    MIXTURES,
    PER_SKILL,
    ROUTER_ONLY,
    SCALES,
    SHIPPED,
    SIGMOIDS,
    Row,
)
from benchmarks.quality.study import Study

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Train and measure what is not there yet, and write what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="made by examples/skills/build.py")
    parser.add_argument("--work", type=Path, default=Path("runs/quality"))
    parser.add_argument("--scale", choices=list(SCALES), default="small")
    parser.add_argument("--only", help="names of rows, or how they begin, separated by commas")
    parser.add_argument("--report-only", action="store_true", help="train and measure nothing")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "benchmarks" / "results" / "quality-cpu.json"
    )
    parser.add_argument("--markdown", type=Path, default=ROOT / "docs" / "quality.md")
    options = parser.parse_args()
    studies = {name: Study(name, options.data, options.work, say) for name in SCALES}
    if not options.report_only:
        work = work_small if options.scale == "small" else work_demo
        work(studies, tuple((options.only or "").split(",")))
    results = {name: collect(study) for name, study in studies.items() if study.folder.is_dir()}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    options.markdown.write_text(document(results), encoding="utf-8")
    say(f"Wrote {options.json} and {options.markdown}")


def say(text: str) -> None:
    """What is going on, with the time."""
    print(time.strftime("%H:%M:%S", time.gmtime()), text, file=sys.stderr, flush=True)


def work_small(studies: dict[str, Study], only: tuple[str, ...]) -> None:
    """Train and measure everything, what is most telling first."""
    study = studies["small"]

    def do(row: Row, seed: int, *measures: str, experts: Row | None = None) -> None:
        if row.name.startswith(only):
            study.train(row, seed, experts)
            for what in measures:
                study.measured(row, seed, what)

    for row in (*MIXTURES, *SIGMOIDS, *LORAS):
        do(row, 0, "router")
    recipe = MIXTURES[0]
    do(recipe, 0, "base")
    lora, softmax = study.best(LORAS) or LORAS[0], study.best(MIXTURES) or MIXTURES[0]
    sigmoid = study.best(SIGMOIDS) or SIGMOIDS[0]
    for seed in (1, 2, 3, 4):
        for row in (lora, sigmoid, softmax):
            do(row, seed, "router")
    for seed in (1, 2):
        do(recipe, seed, "router")
    for row in PER_SKILL:
        do(row, 0, "own")
    alone = study.best(PER_SKILL, "own") or PER_SKILL[0]
    do(FACTOR, 0, "router")
    do(ROUTER_ONLY, 0, "router", experts=alone)
    do(alone, 0, "router", "arrow", "plans")
    do(recipe, 0, "own", "plans", "blend")
    for row in (*ABLATIONS, FREE):
        do(row, 0, "router")
    for seed in (1, 2):
        do(FACTOR, seed, "router")
        do(alone, seed, "own", "router", "arrow")
        do(ROUTER_ONLY, seed, "router", experts=alone)
    for seed in (0, 1, 2):
        do(recipe, seed, "own", "plans", "blend")
        do(alone, seed, "plans", "blend")


def work_demo(studies: dict[str, Study], only: tuple[str, ...]) -> None:
    """One LoRA at the demo bank's full size, with the setting that is best at the small one."""
    study = studies["demo"]
    lora = studies["small"].best(LORAS) or LORAS[0]
    for row, measures in ((SHIPPED, ("base", "router", "texts")), (lora, ("router", "texts"))):
        if row.name.startswith(only):
            study.train(row, 0)
            for what in measures:
                study.measured(row, 0, what)


if __name__ == "__main__":
    main()
