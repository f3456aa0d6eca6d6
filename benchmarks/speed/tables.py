"""Reports as text: a row for the terminal, and the page docs/speed.md.

    python -m benchmarks.speed.tables docs/speed.md benchmarks/results/speed-*.json

As a command it writes the page of several runs, such as one on a CPU and one on a GPU.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.speed.bars import bars
from benchmarks.speed.cases import BATCH, NEW_TOKENS, SEQUENCE, UNCACHED_TOKENS, WRITTEN
from benchmarks.speed.report import Figures, Report, RowReport

_INTRODUCTION = """\
# Speed

*Written by `python -m benchmarks.speed --markdown docs/speed.md`; do not edit.*

What an L-MoE costs, beside PEFT's ways of running LoRAs. The measure is the plain PEFT LoRA whose
rank is that of all experts together: it does the same arithmetic and routes nothing. Each cell
shows the ratio to it (where not said otherwise), the quartiles of that ratio, and the absolute figure; below 1 is faster, or
less memory. All cases of a column ran in one process, interleaved, in an order drawn anew each
round, after a warm-up; the figures are medians over rounds, the ratios were taken within a round.
All cases share the base model's weights and hold random experts of the same shapes on every linear
layer of every block. X-LoRA scores each layer; Arrow mixes its default of three experts a token.
"""
_AGAIN = """\
## Measuring again

```
python -m benchmarks.speed --json out.json --markdown speed.md        # all of it
python -m benchmarks.speed --device cuda --shape llama-8b --json out.json
python -m benchmarks.speed --only decode,forward/1x256                # some rows
make bench-check BASE=main                                            # worse than that commit?
bash benchmarks/on_gpu.sh                                             # all that needs a GPU
```

`make bench-check` measures our ratios of a few rows at two commits, in turns, and exits with 1 if one
has grown by a tenth, beyond the spread of the two measurements (`benchmarks/speed/regressions.py` has
the rule). What looks worse is measured once more before it counts. Absolute times are not compared.
"""
_GROUPS = {
    "forward": (
        "Forward pass",
        "The logits of the last token only, as when a prompt is read. `plan` steers every token "
        "by two overrides; `recorded` gives every router's logits, probabilities and weights back; "
        "`folded` has an even blend of all experts in the base model's weights.",
    ),
    "decode": (
        "Decoding",
        f"One token of {NEW_TOKENS}, greedy, by the same loop for everyone; the prompt is not "
        f"counted. X-LoRA has no cache and reads the whole text twice for each token, so it wrote "
        f"{UNCACHED_TOKENS}.",
    ),
    "graph": (
        "Decoding, as a CUDA graph",
        "The whole step captured and replayed, for all by the same code, routers and plan "
        "included; ratios to the base model captured the same way.",
    ),
    "generate": (
        "Writing a text",
        f"What a person calls, `generate` of each library: one token of {WRITTEN}, greedy, the "
        f"prompt included. X-LoRA wrote {UNCACHED_TOKENS}. Several plans write as many texts at "
        "once; their figure is for one token of each.",
    ),
    "trace": (
        "Tracing",
        "All logits. The full trace also scores every token: log-probability, rank, entropy and "
        "the likeliest alternatives.",
    ),
    "train": (
        "Training step",
        f"Forward, backward and AdamW on {BATCH} × {SEQUENCE} tokens. L-MoE trains experts and "
        "routers under its joint loss, X-LoRA its classifier and experts, a LoRA itself under the "
        "model's own loss. Arrow has nothing to train.",
    ),
    "memory": (
        "Peak memory",
        "Each case in a process of its own, running for the second time. On a CPU the memory is "
        "the process's, interpreter and libraries included; what is added while running is what "
        "the pass itself needs.",
    ),
    "experts": (
        "More experts, the same total rank",
        "Number of experts × rank of each.",
    ),
    "ranks": ("Larger experts", "Each against the LoRA of the same total rank."),
}


def page(reports: Iterable[Report]) -> str:
    """docs/speed.md."""
    parts = [_INTRODUCTION]
    for report in reports:
        parts += _report(report)
    return "\n".join([*parts, _AGAIN])


def row_table(row: RowReport) -> str:
    """A row for the terminal."""
    width = max(map(len, row.cases))
    lines = [
        f"  {name:{width}}  {_amount(one.value.median, row.unit):>9}  {one.ratio}"
        for name, one in row.cases.items()
    ]
    return "\n".join([f"{row.title} ({row.rounds} rounds)", *lines])


def _report(report: Report) -> Iterator[str]:
    place = "a GPU" if report.device == "cuda" else "a CPU"
    yield f"## {report.shape} on {place}\n"
    yield (
        f"{report.experts} experts of rank {report.rank}, {report.dtype}. Measured on: "
        f"{report.machine}.\n"
    )
    yield "### In short\n"
    yield "| what should hold | | where it holds least |\n| --- | --- | --- |"
    for bar in bars(report):
        yield f"| {bar.claim} | {bar.verdict} | {bar.measured} |"
    yield ""
    for group, (title, note) in _GROUPS.items():
        rows = report.group(group)
        if rows:
            yield f"### {title}\n\n{note}\n"
            yield from _table(list(rows.values()))
            yield ""


def _table(rows: list[RowReport]) -> Iterator[str]:
    """A line a case, a column a row."""
    yield f"| | {' | '.join(row.title for row in rows)} |"
    yield f"| --- | {' | '.join('---' for _ in rows)} |"
    names = dict.fromkeys(name for row in rows for name in row.cases)
    for name in names:
        cells = [_cell(row.cases.get(name), row.unit) for row in rows]
        yield f"| {name} | {' | '.join(cells)} |"


def _cell(figures: Figures | None, unit: str) -> str:
    if figures is None:
        return "–"
    median, *around = str(figures.ratio).split(" ", 1)
    return f"{' '.join([f'**{median}**', *around])} · {_amount(figures.value.median, unit)}"


def _amount(value: float, unit: str) -> str:
    if unit == "B":
        return f"{value / 1e6:,.0f} MB"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def main() -> None:
    """Write the page of several runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("reports", type=Path, nargs="+")
    options = parser.parse_args()
    options.page.write_text(page(map(Report.read, options.reports)), encoding="utf-8")


if __name__ == "__main__":
    main()
