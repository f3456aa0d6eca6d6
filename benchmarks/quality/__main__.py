"""Is a mixture better than one LoRA? Trains, measures, and writes docs/quality.md.

python -m benchmarks.quality --data data/skills --work runs/quality
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.quality.rows import ABLATIONS, FACTOR, LORAS, MIXTURES, PER_SKILL, ROUTER_ONLY, Row
from benchmarks.quality.study import Study


def main() -> None:
    """Train and measure what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/quality"))
    parser.add_argument("--scale", choices=["small", "demo"], default="small")
    options = parser.parse_args()

    def say(text: str) -> None:
        print(time.strftime("%H:%M:%S", time.gmtime()), text, file=sys.stderr, flush=True)

    work_through(Study(options.scale, options.data, options.work, say))


def work_through(study: Study) -> None:
    """Train and measure everything, what is most telling first."""

    def do(row: Row, seed: int, *measures: str, experts: Row | None = None) -> None:
        study.trained(row, seed, experts)
        for what in measures:
            study.measured(row, seed, what)

    for row in (MIXTURES[0], LORAS[0], *LORAS[1:], *MIXTURES[1:]):
        do(row, 0, "router")
    lora, mixture = study.best(LORAS), study.best(MIXTURES)
    for seed in (1, 2):
        do(lora, seed, "router")
        do(mixture, seed, "router")
    do(FACTOR, 0, "router")
    for row in PER_SKILL:
        do(row, 0, "own")
    alone = study.best(PER_SKILL, "own")
    do(alone, 0, "router", "plans", "arrow")
    do(mixture, 0, "base", "own", "plans")
    do(ROUTER_ONLY, 0, "router", experts=alone)
    for row in ABLATIONS:
        do(row, 0, "router")
    for seed in (1, 2):
        do(FACTOR, seed, "router")
        do(alone, seed, "own", "router", "arrow")
        do(ROUTER_ONLY, seed, "router", experts=alone)
    for seed in (1, 2):
        do(alone, seed, "plans")
        do(mixture, seed, "own", "plans")


if __name__ == "__main__":
    main()
