"""What a report should show for an L-MoE to cost no more than one LoRA."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.speed.measure import Spread
from benchmarks.speed.report import Report, RowReport
from benchmarks.speed.rows import FOLDED, OURS

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
    forward, decode = report.group("forward"), report.group("decode")
    peaks = {k: row for k, row in report.group("memory").items() if not k.endswith("/added")}
    for what, rows, limit in (
        ("A forward pass takes", forward, 1.00),
        ("Decoding takes", decode, 1.00),
        ("A training step takes", report.group("train"), 1.05),
        ("The process needs at its peak", peaks, 1.05),
    ):
        yield from _at_most(_ours(rows), limit, f"{what} at most {limit:.2f} times the LoRA's")
    if report.device == "cuda":
        long = _ours(forward, to_base=True, only="forward/1x2048")
        yield from _at_most(
            long, 1.15, "2,048 tokens take at most 1.15 times the base model's time"
        )
        captured = _ours(report.group("graph"), to_base=True)
        yield from _at_most(
            captured, 1.10, "A captured step takes at most 1.10 times the base model's, captured"
        )
    folded = [
        (row.cases[FOLDED].to_base, f"{row.title}")
        for row in (forward | decode).values()
        if FOLDED in row.cases
    ]
    yield from _at_most(folded, 1.00, "A folded blend takes as long as the base model")
    yield from _flat(report, 1.10)
    for peer in _PEERS:
        yield from _behind(report, peer)


def _ours(
    rows: Mapping[str, RowReport], *, to_base: bool = False, only: str | None = None
) -> list[tuple[Spread | None, str]]:
    """The ratios of our two compositions, and where they were measured."""
    return [
        (row.cases[name].to_base if to_base else row.cases[name].ratio, f"{name}, {row.title}")
        for key, row in rows.items()
        for name in (_OUTPUT, _FACTOR)
        if name in row.cases and only in (None, key)
    ]


def _at_most(
    ratios: Sequence[tuple[Spread | None, str]], limit: float, claim: str
) -> Iterator[Bar]:
    """The highest of some ratios; each comes with where it was measured."""
    known = [(ratio, where) for ratio, where in ratios if ratio is not None]
    if known:
        worst, where = max(known, key=lambda one: one[0].median)
        verdict = _YES if worst.median <= limit else _NEARLY if worst.low <= limit else _NO
        yield Bar(claim, verdict, f"{worst}: {where}")


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
