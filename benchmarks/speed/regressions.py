"""Has a ratio become worse than one that was measured before?

A ratio to a LoRA of the same total rank, taken within a round, hardly depends on the machine; its
median over rounds moves by a percent or two from run to run. A case is reported when

- its ratio may have grown by a tenth: the upper quartile of this run reaches 1.1 times the median
  of before (at a growth of exactly a tenth that is the case in almost every run, which could not be
  said of the median), and
- the growth is beyond the spread: the lower quartile of this run lies above the upper one of before.

What is reported is measured once more, and counts only if it is reported again.
"""

from benchmarks.speed.report import RowReport

GROWTH = 1.1


def regressions(now: RowReport, before: RowReport) -> dict[str, str]:
    """One sentence for each case of both whose ratio has grown."""
    found = {}
    for name, figures in now.cases.items():
        old = before.cases.get(name)
        if old is None or name == figures.against:
            continue
        ratio, was = figures.ratio, old.ratio
        if ratio.high >= GROWTH * was.median and ratio.low > was.high:
            found[name] = (
                f"{now.title}: {name} took {ratio} times what {figures.against} did, where "
                f"{was} was measured before."
            )
    return found
