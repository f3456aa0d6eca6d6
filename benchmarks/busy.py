"""Does the Studio stay usable while a bank trains on the same machine?

    python -m benchmarks.busy [--rounds 20] [--json out.json]

Times `Studio.trace` and the first words of `Studio.generate` with the demo bank, first alone, then while
a job trains over the same base model (rank 8 on all linear layers, 4 × 256 tokens a step) in a process of
its own; and the training's pace with and without somebody tracing all the time.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lmoe_studio.jobs.job import Job
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.studio import Studio
from lmoe_studio.training.config import TrainingConfig

TEXT = "SELECT name FROM users WHERE id = 3; La capitale de la France est Paris. " * 8
WARM_UP = 2  # steps of the job
QUIET = 4  # steps of the job with nobody tracing


def milliseconds(run: Callable[[], object], rounds: int) -> dict[str, float]:
    """Median and 95th percentile."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return {"median": statistics.median(times), "p95": statistics.quantiles(times, n=20)[-1]}


def start_job(home: Path) -> tuple[Jobs, Job]:
    """A job that trains for longer than we look."""
    skills = []
    for name, letter in (("a", "one of the texts to learn "), ("b", "noch ein Text zum Lernen ")):
        path = home / f"{name}.txt"
        path.write_text("\n".join(f"{number} {letter * 60}" for number in range(200)))
        skills.append({"name": name, "train": [str(path)]})
    values = {"name": "busy", "out": "busy", "skills": skills, "steps": 10_000,
              "held_out_sequences": 1, "eval_sequences": 1}  # fmt: skip
    jobs = Jobs(home)
    return jobs, jobs.start(TrainingConfig.parse(values, source="busy"))


def wait_for_steps(jobs: Jobs, job: Job, count: int) -> float:
    """Seconds until so many more steps are done."""
    begun, start = jobs.get(job.id).step, time.perf_counter()
    while jobs.get(job.id).step < begun + count:
        if not jobs.get(job.id).is_live:
            raise SystemExit(f"The job has ended: {jobs.get(job.id).reason}")
        time.sleep(0.05)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    studio = Studio.load("demo")
    acts: dict[str, Callable[[], object]] = {
        f"trace of {len(studio.trace(TEXT).tokens)} tokens": lambda: studio.trace(TEXT),
        "16 tokens after a prompt": lambda: studio.generate(
            "Count the users.", max_new_tokens=16, seed=0
        ),
    }
    found = {name: {"alone": milliseconds(act, options.rounds)} for name, act in acts.items()}
    with tempfile.TemporaryDirectory() as folder:
        jobs, job = start_job(Path(folder))
        try:
            wait_for_steps(jobs, job, WARM_UP)
            quiet = wait_for_steps(jobs, job, QUIET) / QUIET
            begun, start = jobs.get(job.id).step, time.perf_counter()
            for name, act in acts.items():
                found[name]["while training"] = milliseconds(act, options.rounds)
            done = max(1, jobs.get(job.id).step - begun)
            busy = (time.perf_counter() - start) / done
        finally:
            jobs.cancel(job.id)
            while jobs.get(job.id).is_live:
                time.sleep(0.2)
    for name, times in found.items():
        ratio = times["while training"]["median"] / times["alone"]["median"]
        shown = ", ".join(
            f"{when} {t['median']:.0f} ms (p95 {t['p95']:.0f})" for when, t in times.items()
        )
        print(f"{name}: {shown}: {ratio:.2f} ×")
    print(f"a training step: {quiet:.1f} s, {busy:.1f} s while the Studio is used without a pause")
    if options.json:
        steps = {"step alone, s": quiet, "step while used, s": busy}
        result = {"cores": os.cpu_count(), "acts": found, **steps}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
