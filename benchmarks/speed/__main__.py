"""L-MoE side by side with PEFT's LoRA, X-LoRA and Arrow: time and memory, as ratios.

    python -m benchmarks.speed --json out.json --markdown docs/speed.md
    python -m benchmarks.speed --device cuda --shape llama-8b --json out.json
    python -m benchmarks.speed --only decode,forward/1x256
    python -m benchmarks.speed --check benchmarks/results/speed-cpu.json

`docs/speed.md` says what is measured, and how. With `--check` a few of our ratios are measured
again; the exit status is 1 if one has become worse, see `regressions.py`.
"""

import argparse
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.speed.bases import SHAPES
from benchmarks.speed.measure import Effort, Spread, interleave, ratios
from benchmarks.speed.memory import memory_of
from benchmarks.speed.regressions import regressions
from benchmarks.speed.report import Figures, Machine, Report, RowReport, Unit
from benchmarks.speed.rows import BASE, OURS, Entries, Row, rows_of
from benchmarks.speed.tables import page, row_table
from benchmarks.speed.variants import Variants
from lmoe_studio.errors import LMoEError

CHECKED = ("forward/1x256", "decode")
"""What `--check` measures unless told otherwise."""


def main() -> None:
    """Measure, and write or compare."""
    options = _options()
    random.seed(0)
    if options.check:
        torch.set_num_threads(options.threads or options.check.machine.threads)
        effort = Effort(options.rounds, options.seconds, least=5)
        sys.exit(check(options.check, options.only or CHECKED, effort))
    effort = Effort(options.rounds, options.seconds)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    earlier = None
    if options.json and options.only and options.json.exists():
        earlier = Report.read(options.json)
    for report in measure(options.shape, options.device, options.only, effort):
        whole = report.updated(earlier) if earlier else report
        if options.json:
            options.json.write_text(whole.model_dump_json(indent=1) + "\n", encoding="utf-8")
        if options.markdown:
            options.markdown.write_text(page([whole]), encoding="utf-8")


def measure(
    shape: str, device: str, only: Sequence[str] | None, effort: Effort
) -> Iterator[Report]:
    """Measure the rows wanted; after each, print it and give all that is known by then.

    Memory comes first: its processes then have the machine's to themselves.
    """
    variants = Variants(shape, device)
    rows = [row for row in rows_of(shape, device) if row.among(only)]
    found: dict[str, RowReport] = {}
    for row in sorted(rows, key=lambda row: not row.weighed):
        found |= measure_row(row, variants, effort)
        yield Report(
            machine=Machine.here(device),
            shape=shape,
            device=device,
            dtype=str(variants.dtype).removeprefix("torch."),
            experts=variants.shape.experts,
            rank=variants.shape.rank,
            rows=found,
        )
    variants.forget()


def measure_row(
    row: Row, variants: Variants, effort: Effort, *, only_ours: bool = False
) -> dict[str, RowReport]:
    """Measure the cases of a row, or only ours and those that they are held against."""
    variants.keep_for(row.group)
    entries = row.entries(variants)
    if only_ours:
        ours = {name: entry for name, entry in entries.items() if name.startswith(OURS)}
        references = {entry.against for entry in ours.values()}
        entries = {n: entry for n, entry in entries.items() if n in ours or n in references}
    found = _weigh(row, variants, entries) if row.weighed else _time(row, variants, entries, effort)
    for one in found.values():
        print(row_table(one), flush=True)
    return found


def _time(row: Row, variants: Variants, entries: Entries, effort: Effort) -> dict[str, RowReport]:
    cases = {name: entry.build() for name, entry in entries.items()}
    times = interleave(cases, effort, variants.device)
    return {row.key: _row_report(row.title, "s", entries, times)}


def _weigh(row: Row, variants: Variants, entries: Entries) -> dict[str, RowReport]:
    """The most memory of each case's process, and what it had added by then."""
    found = {name: memory_of(variants.name, variants.device, row.key, name) for name in entries}
    peak = {name: [memory.peak] for name, memory in found.items()}
    added = {name: [memory.added] for name, memory in found.items()}
    return {
        row.key: _row_report(f"peak, {row.title}", "B", entries, peak),
        f"{row.key}/added": _row_report(f"while running, {row.title}", "B", entries, added),
    }


def _row_report(
    title: str,
    unit: Unit,
    entries: Entries,
    values: Mapping[str, Sequence[float]],
) -> RowReport:
    cases = {
        name: Figures(
            value=Spread.of(values[name]),
            against=entry.against,
            ratio=ratios(values[name], values[entry.against]),
            to_base=ratios(values[name], values[BASE]) if BASE in values else None,
        )
        for name, entry in entries.items()
    }
    return RowReport(title=title, unit=unit, rounds=len(next(iter(values.values()))), cases=cases)


def check(committed: Report, only: Sequence[str], effort: Effort) -> int:
    """Measure our ratios again and print what has become worse; gives the exit status."""
    here = Machine.here(committed.device)
    if (here.cpu, here.gpu) != (committed.machine.cpu, committed.machine.gpu):
        print(f"The ratios of before are from another machine: {committed.machine}.")
    variants = Variants(committed.shape, committed.device)
    worse: list[str] = []
    for row in rows_of(committed.shape, committed.device):
        if row.among(only) and row.key in committed.rows:
            worse += _check_row(row, committed, variants, effort)
    variants.forget()
    for sentence in worse:
        print(sentence, file=sys.stderr)
    return 1 if worse else 0


def _check_row(row: Row, committed: Report, variants: Variants, effort: Effort) -> list[str]:
    """What is worse in a row; a suspicion counts if a second measurement shares it."""
    suspected = None
    for _ in range(2):
        now = measure_row(row, variants, effort, only_ours=True)
        found = {
            (key, name): sentence
            for key, one in now.items()
            for name, sentence in regressions(one, committed.rows[key]).items()
        }
        suspected = {n: s for n, s in found.items() if suspected is None or n in suspected}
        if not suspected:
            return []
    return list((suspected or {}).values())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json", type=Path, help="write the figures here; with --only, beside those that are there"
    )
    parser.add_argument("--markdown", type=Path, help="write the page of this run here")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shape", choices=list(SHAPES), default="smollm2-135m")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), help="groups or rows, as forward,decode"
    )
    parser.add_argument("--threads", type=int, help="of the CPU; 1 counts processor time")
    parser.add_argument("--rounds", type=int, default=15, help="the most of a row")
    parser.add_argument("--seconds", type=float, default=60, help="about how long a row may take")
    parser.add_argument("--check", type=Report.read, help="compare with these figures instead")
    options = parser.parse_args()
    of = options.check or options
    rows = rows_of(of.shape, of.device)
    for name in options.only or ():
        if not any(row.among([name]) for row in rows):
            keys = ", ".join(row.key for row in rows)
            parser.error(f"no row or group '{name}'; the rows are {keys}")
    return options


if __name__ == "__main__":
    try:
        main()
    except LMoEError as error:
        sys.exit(str(error))
