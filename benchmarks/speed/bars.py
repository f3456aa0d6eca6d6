"""What a report should show for an L-MoE to cost no more than one LoRA."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.speed.report import Report, RowReport
from benchmarks.speed.rows import OURS

_YES, _NEARLY, _NO = "yes", "within the spread", "**no**"
_PEERS = ("PEFT X-LoRA", "PEFT Arrow")
_OUTPUT, _FACTOR = f"{OURS} output", f"{OURS} factor"


@dataclass(frozen=True)
class Bar:
    """A claim, and how far it holds."""

    claim: str
    verdict: str
    measured: str
    """Where it holds least."""


def bars(report: Report) -> Iterator[Bar]:
    """The claims that a report has rows for."""
    peaks = {k: row for k, row in report.group("memory").items() if not k.endswith("/added")}
    yield from _at_most(report.group("forward"), 1.00, "A forward pass takes")
    yield from _at_most(report.group("decode"), 1.00, "Decoding takes")
    yield from _at_most(report.group("train"), 1.05, "A training step takes")
    yield from _at_most(peaks, 1.05, "The process needs at its peak")
    yield from _flat(report, 1.10)
    for peer in _PEERS:
        yield from _behind(report, peer)


def _at_most(rows: Mapping[str, RowReport], limit: float, what: str) -> Iterator[Bar]:
    ratios = [
        (row.cases[name].ratio, f"{name}, {row.title}")
        for row in rows.values()
        for name in (_OUTPUT, _FACTOR)
        if name in row.cases
    ]
    if ratios:
        worst, where = max(ratios, key=lambda one: one[0].median)
        verdict = _YES if worst.median <= limit else _NEARLY if worst.low <= limit else _NO
        yield Bar(f"{what} at most {limit:.2f} times the LoRA's", verdict, f"{worst}: {where}")


def _flat(report: Report, limit: float) -> Iterator[Bar]:
    """The dearest number of experts against the cheapest."""
    for row in report.group("experts").values():
        ours = {n: one.ratio.median for n, one in row.cases.items() if n.startswith(OURS)}
        most, least = max(ours, key=lambda n: ours[n]), min(ours, key=lambda n: ours[n])
        growth = ours[most] / ours[least]
        yield Bar(
            f"No number of experts costs more than {limit:.2f} times any other ({row.title})",
            _YES if growth <= limit else _NO,
            f"{growth:.2f}: {most} over {least}",
        )


def _behind(report: Report, peer: str) -> Iterator[Bar]:
    """The peer against ours in every row that has both."""
    found = {
        f"{name}, {row.title}": row.cases[name].ratio.median / row.cases[ours].ratio.median
        for row in report.rows.values()
        for name in row.cases
        if name.startswith(peer) and (ours := _ours_beside(name, peer, row)) is not None
    }
    if found:
        ahead = [where for where, times in found.items() if times <= 1]
        nearest = min(found, key=lambda where: found[where])
        measured = f"{found[nearest]:.2f} times ours: {nearest}"
        yield Bar(
            f"{peer} is behind in every row", _NO if ahead else _YES, "; ".join(ahead) or measured
        )


def _ours_beside(name: str, peer: str, row: RowReport) -> str | None:
    """Our case that does what a peer's does."""
    same = name.replace(peer, OURS)
    return same if same in row.cases else _OUTPUT if _OUTPUT in row.cases else None
