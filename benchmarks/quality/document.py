"""The document, written from the results: every number and every verdict comes from them."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev
from typing import Any

Values = dict[str, Any]
Losses = dict[str, float]
"""Nats a token, by skill."""


@dataclass(frozen=True)
class Line:
    """A line of the main table: one way to use one trained row, with every seed there is."""

    title: str
    seeds: dict[str, Losses]

    @property
    def means(self) -> dict[str, float]:
        """Mean over the skills, by seed."""
        return {seed: mean(losses.values()) for seed, losses in self.seeds.items()}

    def cells(self, skills: list[str]) -> list[str]:
        """Its losses as text: by skill, mean over the seeds; and the mean with its spread."""
        each = [f"{mean(losses[skill] for losses in self.seeds.values()):.3f}" for skill in skills]
        return [self.title, *each, f"**{spread(self.means.values())}**", str(len(self.seeds))]


@dataclass(frozen=True)
class Difference:
    """One line less another, seed by seed: below 0 where the first is better."""

    by_seed: list[float]

    @classmethod
    def of(cls, one: Line, other: Line, skill: str | None = None) -> "Difference":
        """Over the seeds that both have, of the mean over the skills or of one skill."""
        seeds = [seed for seed in one.seeds if seed in other.seeds]
        if skill is None:
            return cls([one.means[seed] - other.means[seed] for seed in seeds])
        return cls([one.seeds[seed][skill] - other.seeds[seed][skill] for seed in seeds])

    @property
    def mean(self) -> float:
        return mean(self.by_seed)

    @property
    def is_certain(self) -> bool:
        """The same sign for every seed, and a mean of more than two standard errors."""
        same = all(value < 0 for value in self.by_seed) or all(value > 0 for value in self.by_seed)
        if len(self.by_seed) < 2:
            return False
        return same and abs(self.mean) > 2 * stdev(self.by_seed) / sqrt(len(self.by_seed))

    def __str__(self) -> str:
        side = "lower" if self.mean < 0 else "higher"
        if len(self.by_seed) == 1:
            return (
                f"{abs(self.mean):.3f} nats a token {side} (one seed, which says nothing of noise)"
            )
        each = ", ".join(f"{value:+.3f}" for value in self.by_seed)
        noise = "outside" if self.is_certain else "within"
        return f"{abs(self.mean):.3f} nats a token {side} (by seed {each}: {noise} seed noise)"


def spread(values: Iterable[float]) -> str:
    """Mean, and the standard deviation where there are several."""
    found = list(values)
    if len(found) < 2:
        return f"{found[0]:.3f}"
    return f"{mean(found):.3f} ± {stdev(found):.3f}"


class Results:
    """One scale of the study."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.rows: dict[str, Values] = values["rows"]
        self.rank = values["rank"] * values["experts"]

    def line(self, title: str, row: str | None, *path: str) -> Line | None:
        """What was measured of a row; None where it was not."""
        seeds = {}
        for seed, measures in (self.rows.get(row or "") or {"seeds": {}})["seeds"].items():
            found = measures
            for key in path:
                found = found.get(key, {})
            if found:
                seeds[seed] = found
        return Line(title, seeds) if seeds else None

    @property
    def base(self) -> Line | None:
        measured = [row for row in self.rows if self.line("", row, "base", "test")]
        return self.line("base model", measured[0], "base", "test") if measured else None

    @property
    def lora(self) -> Line | None:
        return self.line(
            f"one LoRA of rank {self.rank}", self.values["chosen"]["lora"], "router", "test"
        )

    @property
    def mixture(self) -> Line | None:
        return self.line("L-MoE `output`", self.values["chosen"]["mixture"], "router", "test")

    @property
    def factor(self) -> Line | None:
        return self.line("L-MoE `factor`", "factor", "router", "test")

    @property
    def oracle(self) -> Line | None:
        """The L-MoE's experts, the best one for each token."""
        return self.line(
            "L-MoE, best expert for each token",
            self.values["chosen"]["mixture"],
            "plans",
            "best_per_token",
        )

    def lines(self) -> list[Line]:
        """The main table, as far as it is measured."""
        mixture, alone = self.values["chosen"]["mixture"], self.values["chosen"]["per skill"]
        lines = [
            self.base,
            self.lora,
            self.line("the demo bank", "shipped", "router", "test"),
            self.mixture,
            self.factor,
            self.line("per-skill LoRAs, uniform weights", alone, "router", "test"),
            self.line("per-skill LoRAs, Arrow router", alone, "arrow", "test"),
            self.line("per-skill LoRAs, router trained", "router-only", "router", "test"),
            self.line("per-skill LoRAs, that of the text's skill", alone, "own", "test"),
            self.line("per-skill LoRAs, best static blend", alone, "blend", "test"),
            self.line("per-skill LoRAs, best for each text", alone, "plans", "best_per_text"),
            self.line("per-skill LoRAs, best for each token", alone, "plans", "best_per_token"),
            self.line("L-MoE, uniform weights", mixture, "plans", "uniform"),
            self.line("L-MoE, expert of the text's skill", mixture, "own", "test"),
            self.line("L-MoE, best static blend", mixture, "blend", "test"),
            self.line("L-MoE, best expert for each text", mixture, "plans", "best_per_text"),
            self.oracle,
        ]
        return [line for line in lines if line]

    def skills(self) -> list[str]:
        return list(next(iter(self.lines()[0].seeds.values())))


def answers(results: Results) -> list[str]:
    """What the numbers say, a paragraph a question."""
    said = []
    lora, mixture = results.lora, results.mixture
    if lora and mixture:
        gap = Difference.of(mixture, lora)
        said.append(
            f"**Is the mixture better than one LoRA of the same size?** After {results.values['steps']} "
            f"steps L-MoE `output` is {gap} than one LoRA of rank {results.rank}, mean over the "
            "skills."
        )
        said.append(_when(results, mixture, lora))
    if results.factor and mixture:
        gap = Difference.of(results.factor, mixture)
        said.append(f"**Does the composition matter?** `factor` is {gap} than `output`.")
    if results.oracle and mixture and results.base:
        said.append(_how_far(results.oracle, mixture, results.base))
    said.append(_apart(results))
    return [text for text in said if text]


def _when(results: Results, mixture: Line, lora: Line) -> str:
    gaps = {skill: Difference.of(mixture, lora, skill) for skill in results.skills()}
    better = {s: g for s, g in gaps.items() if g.is_certain and g.mean < 0}
    worse = {s: g for s, g in gaps.items() if g.is_certain and g.mean > 0}
    if len(next(iter(gaps.values())).by_seed) < 2:
        order = sorted(gaps, key=lambda skill: gaps[skill].mean)
        each = ", ".join(f"{skill} {gaps[skill].mean:+.3f}" for skill in order)
        return f"**When?** By skill, with one seed: {each}."
    rest = [skill for skill in gaps if skill not in better and skill not in worse]
    parts = [
        f"{what} {_listed(found)}"
        for what, found in (("lower on", better), ("higher on", worse))
        if found
    ]
    if rest:
        parts.append(f"within seed noise on {', '.join(rest)}")
    return f"**When?** By skill, the mixture is {'; '.join(parts)}."


def _listed(gaps: dict[str, Difference]) -> str:
    order = sorted(gaps, key=lambda skill: -abs(gaps[skill].mean))
    return ", ".join(f"{skill} ({gaps[skill].mean:+.3f})" for skill in order)


def _how_far(oracle: Line, mixture: Line, base: Line) -> str:
    regret = Difference.of(mixture, oracle)
    seeds = [seed for seed in mixture.seeds if seed in oracle.seeds]
    start = mean(base.means.values())  # the base model has no seed
    shares = [(start - mixture.means[seed]) / (start - oracle.means[seed]) for seed in seeds]
    return (
        f"**How far is it from the oracle?** The router is {regret} than the one expert that is best "
        f"for each token in hindsight: of what that oracle gains over the base model, the router has "
        f"{mean(shares):.0%}. The oracle knows the token that comes; it is a mark, not a promise, also "
        "because a pass under one expert changes what later tokens see."
    )


def _apart(results: Results) -> str:
    names = ("that of the text's skill", "router trained", "Arrow router", "uniform weights")
    found = {line.title.removeprefix("per-skill LoRAs, "): line for line in results.lines()}
    parts = [f"{name} {spread(found[name].means.values())}" for name in names if name in found]
    if not parts or not results.mixture:
        return ""
    return (
        "**And LoRAs that were trained apart?** Each on its own skill, with as much data in all: "
        f"{'; '.join(parts)}; trained together {spread(results.mixture.means.values())}."
    )


def main_table(results: Results) -> str:
    """Losses by skill."""
    skills = results.skills()
    head = ["", *skills, "mean", "seeds"]
    return table(head, (line.cells(skills) for line in results.lines()))


def routing_table(results: Results) -> str:
    """How each trained router routes, and what it costs."""
    head = [
        "", "held-out loss", "skill–expert information, bits", "by chance",
        "effective experts a token", "overall", "layers: good / watch / collapsed",
        "layers with a dead expert", "seeds",
    ]  # fmt: skip
    return table(head, filter(None, (_routing_row(row) for row in results.rows.values())))


def _routing_row(row: Values) -> list[str] | None:
    seeds = [measures["router"] for measures in row["seeds"].values() if "router" in measures]
    seeds = [measures for measures in seeds if "routing" in measures]
    if not seeds or row["kind"] == "per skill":
        return None
    routing = [measures["routing"] for measures in seeds]
    lights = "/".join(
        str(sum(found["lights"].get(light, 0) for found in routing))
        for light in ("good", "watch", "collapsed")
    )
    return [
        row["title"],
        spread(mean(measures["test"].values()) for measures in seeds),
        *(
            f"{mean(found[name] for found in routing):.{digits}f}"
            for name, digits in (
                ("information", 2), ("baseline", 3), ("effective_a_token", 2),
                ("effective_overall", 2),
            )
        ),
        lights.replace("/", " / "),
        str(sum(found["dead"] for found in routing)),
        str(len(seeds)),
    ]  # fmt: skip


def tried_table(results: Results) -> str:
    """The settings that were tried with seed 0, and which were chosen."""
    chosen = results.values["chosen"].values()
    rows = []
    for name, row in results.rows.items():
        measures = row["seeds"].get("0", {})
        found = measures.get("own" if row["kind"] == "per skill" else "router")
        is_try = name in chosen or row["kind"] in ("one LoRA", "per skill")
        if found and (is_try or name.startswith("output-")):
            rows.append(
                [
                    row["title"],
                    f"{mean(found['validation'].values()):.3f}",
                    f"{mean(found['test'].values()):.3f}",
                    "chosen" if name in chosen else "",
                ]
            )
    return table(["", "validation", "test", ""], rows)


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; numbers to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def document(scales: dict[str, Values]) -> str:
    """docs/quality.md."""
    parts = [_HEAD]
    if "small" in scales:
        small = Results(scales["small"])
        parts += [_scale(small), "## The answer", *answers(small), "## The table", _TABLE]
        parts += [main_table(small), "## Routing", _ROUTING, routing_table(small)]
        parts += ["## Settings tried", _TRIED, tried_table(small)]
    if "demo" in scales:
        full = Results(scales["demo"])
        parts += ["## At the demo bank's size", _full(full), main_table(full)]
    parts += ["## How", _HOW]
    return "\n\n".join(parts) + "\n"


def _scale(results: Results) -> str:
    values = results.values
    tokens = values["steps"] * values["batch_size"] * values["sequence_length"]
    mixture = results.rows.get(values["chosen"]["mixture"] or "", {}).get("parameters")
    size = ""
    if mixture:
        size = (
            f" All rows train {mixture['experts']:,} parameters of LoRA; the mixture's router has "
            f"{mixture['router']:,} more."
        )
    return (
        f"{values['experts']} experts of rank {values['rank']} on {', '.join(values['modules'])}; "
        f"{values['steps']} steps of {values['batch_size']} × {values['sequence_length']} tokens "
        f"({tokens:,} in all), the same sequences for every row; losses on "
        f"{values['test_sequences']} held-out sequences a skill. Machine: {values['machine']}.{size}"
    )


def _full(results: Results) -> str:
    text = (
        f"The shipped demo bank ({results.values['steps']} steps of "
        f"{results.values['batch_size']} × {results.values['sequence_length']} tokens) beside one "
        f"LoRA of rank {results.rank} trained on the same sequences, seed 0."
    )
    one = next(
        (results.line("", n, "router", "test") for n in results.rows if n != "shipped"), None
    )
    shipped = results.line("", "shipped", "router", "test")
    if one and shipped:
        text += f" The demo bank is {Difference.of(shipped, one)} on the mean."
    return text


_HEAD = """# Does the mixture earn its keep?

Held-out loss in nats a token, lower is better, on the texts of [examples/skills](../examples/skills)
with SmolLM2-135M-Instruct as the base. This page is written by `python -m benchmarks.quality` from
[the numbers](../benchmarks/results/quality-cpu.json); nothing in it is typed by hand."""
_TABLE = """Mean ± standard deviation over the seeds; a seed draws the texts, their order and the initial
weights anew, for all rows alike. Rows with a choice made in hindsight (best for each text, for each
token) or with the skill known are marks to compare with, not ways to run a model."""
_ROUTING = """Mutual information of skill and expert in the upper half of the layers (at most 3 bits), and the
same with shuffled labels; how many experts the weights of one token, and of all tokens together,
amount to; lights of `gate_health`. Ablations change one thing in the demo bank's recipe, seed 0."""
_TRIED = """Both sides were tried with several settings on seed 0, and chosen by other held-out texts than
those of the tables. Adam's steps do not shrink with the gradient, so α/r times the learning rate is
what counts."""
_HOW = """- **one LoRA**: rank N·r, trained on the mixture's very batches, in their order.
- **per-skill LoRAs**: each trained alone on its skill's sequences, steps/N steps: as much data in all.
- **router trained**: a linear router on the frozen per-skill LoRAs, language-modelling and balance
  loss alone, as many further steps as the others have in all: X-LoRA's setting, in one pass.
- **best static blend**: one weight an expert for each skill, by gradient steps on a few of the skill's
  training sequences, measured on its held-out ones.
- **outside seed noise**: the same sign for every seed, and a mean difference of more than two standard
  errors of the differences by seed.

```
python examples/skills/build.py --out data/skills
python -m benchmarks.quality --data data/skills --work runs/quality                # hours on two cores
python -m benchmarks.quality --data data/skills --work runs/quality --scale demo
python -m benchmarks.quality --data data/skills --work runs/quality --report-only  # write this page
```

What is trained is kept in `--work`, and a row that is there is not trained again."""
