"""The document, written from the results: every number and every verdict comes from them."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.quality.rows import MIXTURES

RECIPE = MIXTURES[0].name
Values = dict[str, Any]
Losses = dict[str, float]
"""Nats a token, by skill."""


_STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Two-sided 95 % quantile of Student's t for so many seeds."""


@dataclass(frozen=True)
class Line:
    """A line of the main table: one way to use one trained row, with every seed there is."""

    title: str
    seeds: dict[str, Losses]

    @property
    def means(self) -> dict[str, float]:
        """Mean over the skills, by seed."""
        return {seed: mean(losses.values()) for seed, losses in self.seeds.items()}

    def cells(self, skills: list[str], reference: "Line | None") -> list[str]:
        """Its losses as text: by skill, mean over the seeds; the mean; and less the reference's."""
        each = [f"{mean(losses[skill] for losses in self.seeds.values()):.3f}" for skill in skills]
        found = Difference.of(self, reference).by_seed if reference else []
        apart = spread(found, "+") if found and self != reference else ""
        return [self.title, *each, spread(self.means.values()), apart, str(len(self.seeds))]


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
        """Whether the 95 % interval of the mean over the seeds, by Student's t, leaves out 0."""
        count = len(self.by_seed)
        if count not in _STUDENT:
            return False
        return abs(self.mean) > _STUDENT[count] * stdev(self.by_seed) / sqrt(count)

    def than(self, other: str) -> str:
        """In words, against what is called `other`."""
        if round(self.mean, 3) == 0:
            said = f"level with {other}"
        else:
            side = "lower" if self.mean < 0 else "higher"
            said = f"{abs(self.mean):.3f} nats a token {side} than {other}"
        if len(self.by_seed) == 1:
            return f"{said} (one seed, which says nothing of noise)"
        each = ", ".join(f"{value:+.3f}" for value in self.by_seed)
        noise = "outside" if self.is_certain else "within"
        return f"{said} (by seed {each}: {noise} seed noise)"


def spread(values: Iterable[float], sign: str = "") -> str:
    """Mean, and the standard deviation where there are several; sign "+" shows it always."""
    found = list(values)
    if len(set(found)) < 2:
        return f"{found[0]:{sign}.3f}"
    return f"{mean(found):{sign}.3f} ± {stdev(found):.3f}"


class Results:
    """One scale of the study."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.rows: dict[str, Values] = values["rows"]
        self.rank = values["rank"] * values["experts"]

    def line(self, title: str, row: str | None, *path: str) -> Line | None:
        """What was measured of a row; None where it was not."""
        seeds = {}
        for seed, measures in self._seeds(row).items():
            found = measures
            for key in path:
                found = found.get(key, {})
            if found:
                seeds[seed] = found
        return Line(title, seeds) if seeds else None

    def texts(self, row: str | None) -> dict[str, list[float]]:
        """Loss of each held-out sequence by skill, seed 0; nothing where that was not measured."""
        return self._seeds(row).get("0", {}).get("texts", {}).get("losses", {})

    def information(self, row: str | None) -> float | None:
        """Bits of skill–expert information, mean over the seeds."""
        routers = [found.get("router", {}) for found in self._seeds(row).values()]
        found = [router["routing"]["information"] for router in routers if "routing" in router]
        return mean(found) if found else None

    def _seeds(self, row: str | None) -> Values:
        """What was measured of a row, by seed."""
        return self.rows[row]["seeds"] if row in self.rows else {}

    @property
    def ways(self) -> dict[str, str | None]:
        """The L-MoE rows that the answers compare, by how they are called there."""
        chosen = self.values["chosen"]
        ways = {
            "with sigmoid weights": chosen["sigmoid"],
            "with softmax weights": chosen["softmax"],
        }
        return (
            ways
            if chosen["softmax"] == RECIPE
            else ways | {"with the demo bank's settings": RECIPE}
        )

    @property
    def base(self) -> Line | None:
        """It is the same for every seed of the rows that it is compared with."""
        measured = (self.line("", row, "base", "test") for row in self.rows)
        line = next(filter(None, measured), None)
        if line is None:
            return None
        losses = next(iter(line.seeds.values()))
        seeds = {seed for row in self.rows.values() for seed in row["seeds"]}
        return Line("base model", dict.fromkeys(sorted(seeds), losses))

    @property
    def lora(self) -> Line | None:
        return self.line(
            f"one LoRA of rank {self.rank}", self.values["chosen"]["lora"], "router", "test"
        )

    @property
    def mixture(self) -> Line | None:
        """The L-MoE with the settings that did best on the validation texts."""
        is_sigmoid = self.values["chosen"]["mixture"] == self.values["chosen"]["sigmoid"]
        return self.sigmoid if is_sigmoid else self.softmax

    @property
    def softmax(self) -> Line | None:
        chosen = self.values["chosen"]["softmax"]
        return self.line("L-MoE `output`, softmax weights", chosen, "router", "test")

    @property
    def sigmoid(self) -> Line | None:
        chosen = self.values["chosen"]["sigmoid"]
        return self.line("L-MoE `output`, sigmoid weights", chosen, "router", "test")

    @property
    def recipe(self) -> Line | None:
        """The L-MoE with the demo bank's settings, which the ablations change."""
        return self.line("L-MoE `output`, demo recipe", RECIPE, "router", "test")

    @property
    def factor(self) -> Line | None:
        return self.line("L-MoE `factor`, demo recipe", "factor", "router", "test")

    @property
    def oracle(self) -> Line | None:
        """The experts of the demo bank's recipe, the best one for each token."""
        return self.line(
            "demo recipe, best expert for each token", RECIPE, "plans", "best_per_token"
        )

    def lines(self) -> list[Line]:
        """The main table, as far as it is measured."""
        alone = self.values["chosen"]["per skill"]
        is_recipe = self.values["chosen"]["softmax"] == RECIPE
        lines = [
            self.base,
            self.lora,
            self.line("the demo bank", "shipped", "router", "test"),
            self.sigmoid,
            self.softmax,
            None if is_recipe else self.recipe,
            self.factor,
            self.line("per-skill LoRAs, uniform weights", alone, "router", "test"),
            self.line("per-skill LoRAs, Arrow router", alone, "arrow", "test"),
            self.line("per-skill LoRAs, router trained", "router-only", "router", "test"),
            self.line("per-skill LoRAs, that of the text's skill", alone, "own", "test"),
            self.line("per-skill LoRAs, best static blend", alone, "blend", "test"),
            self.line("per-skill LoRAs, best for each text", alone, "plans", "best_per_text"),
            self.line("per-skill LoRAs, best for each token", alone, "plans", "best_per_token"),
            self.line("demo recipe, uniform weights", RECIPE, "plans", "uniform"),
            self.line("demo recipe, expert of the text's skill", RECIPE, "own", "test"),
            self.line("demo recipe, best static blend", RECIPE, "blend", "test"),
            self.line("demo recipe, best expert for each text", RECIPE, "plans", "best_per_text"),
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
        said += [_is_better(results, lora), _when(results, mixture, lora), _how_clear(results)]
    if results.factor and results.recipe:
        gap = Difference.of(results.factor, results.recipe)
        said.append(
            "**Does the composition matter?** With the demo bank's settings `factor` is "
            f"{gap.than('`output`')}."
        )
    if results.oracle and results.recipe and results.base:
        said.append(_how_far(results.oracle, results.recipe, results.base))
    said.append(_apart(results))
    return [text for text in said if text]


def _is_better(results: Results, lora: Line) -> str:
    said = [
        f"{way} it is {Difference.of(line, lora).than('the LoRA')}"
        for way, row in results.ways.items()
        if (line := results.line("", row, "router", "test"))
    ]
    return (
        "**Is the mixture better than one LoRA of the same size?** L-MoE `output` and one LoRA of "
        f"rank {results.rank}, each with its best settings, after {results.values['steps']} steps, mean "
        f"over the skills: {'; '.join(said)}."
    )


def _how_clear(results: Results) -> str:
    """What the routing says of the skill: the price of a lower loss."""
    parts = [
        f"{information:.2f} {way}"
        for way, row in results.ways.items()
        if (information := results.information(row)) is not None
    ]
    return (
        "**How clearly do the experts differ?** Bits that the routing of the upper layers says about "
        f"the skill: {', '.join(parts)}."
    )


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
    return (
        f"**When?** By skill, {mixture.title} (of the L-MoEs the best on the validation texts) is "
        f"{'; '.join(parts)}."
    )


def _listed(gaps: dict[str, Difference]) -> str:
    order = sorted(gaps, key=lambda skill: -abs(gaps[skill].mean))
    return ", ".join(f"{skill} ({gaps[skill].mean:+.3f})" for skill in order)


def _how_far(oracle: Line, mixture: Line, base: Line) -> str:
    regret = Difference.of(mixture, oracle)
    seeds = [seed for seed in mixture.seeds if seed in oracle.seeds]
    start = mean(base.means.values())
    shares = [(start - mixture.means[seed]) / (start - oracle.means[seed]) for seed in seeds]
    return (
        "**How far is it from the oracle?** With the demo bank's settings the router is "
        f"{regret.than('the one expert that is best for each token in hindsight')}: of what that oracle "
        "gains over the base model, the router has "
        f"{mean(shares):.0%}. The oracle knows the token that comes; it is a mark, not a promise, also "
        "because a pass under one expert changes what later tokens see."
    )


def _apart(results: Results) -> str:
    names = ("that of the text's skill", "router trained", "Arrow router", "uniform weights")
    found = {line.title.removeprefix("per-skill LoRAs, "): line for line in results.lines()}
    if not results.mixture:
        return ""
    parts = [
        f"{name} {spread(Difference.of(found[name], results.mixture).by_seed, '+')}"
        for name in names
        if name in found
    ]
    if not parts:
        return ""
    return (
        "**And LoRAs that were trained apart?** Each on its own skill, with as much data in all; nats "
        f"a token against {results.mixture.title}, with the same seeds: {'; '.join(parts)}."
    )


def main_table(results: Results) -> str:
    """Losses by skill."""
    skills = results.skills()
    head = ["", *skills, "mean", "less one LoRA's", "seeds"]
    return table(head, (line.cells(skills, results.lora) for line in results.lines()))


def routing_table(results: Results) -> str:
    """How each trained router routes, and what it costs."""
    head = [
        "", "held-out loss", "less the recipe's", "skill–expert information, bits", "by chance",
        "effective experts a token", "overall", "layers: good / watch / collapsed",
        "layers with a dead expert", "seeds",
    ]  # fmt: skip
    recipe = results.line("", RECIPE, "router", "test")
    found = (
        _routing_row(row, results.line("", name, "router", "test"), recipe)
        for name, row in results.rows.items()
    )
    return table(head, filter(None, found))


def _routing_row(row: Values, line: Line | None, recipe: Line | None) -> list[str] | None:
    seeds = [measures["router"] for measures in row["seeds"].values() if "router" in measures]
    seeds = [measures for measures in seeds if "routing" in measures]
    if not seeds or not line or row["kind"] == "per skill":
        return None
    routing = [measures["routing"] for measures in seeds]
    lights = "/".join(
        str(sum(found["lights"].get(light, 0) for found in routing))
        for light in ("good", "watch", "collapsed")
    )
    return [
        row["title"],
        spread(line.means.values()),
        spread(Difference.of(line, recipe).by_seed, "+")
        if recipe and line.seeds != recipe.seeds
        else "",
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
        if found and (is_try or name.startswith(("output-", "sigmoid-"))):
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
        parts += [_scale(small), "## The answer", *answers(small), "## The table"]
        parts += [_TABLE, main_table(small), "## Routing", _ROUTING, routing_table(small)]
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
    lora = results.rows.get(values["chosen"]["lora"] or "", {}).get("parameters")
    size = ""
    if mixture and lora:
        size = (
            f" One LoRA trains {lora['experts']:,} parameters, the mixture {mixture['experts']:,} and "
            f"its router {mixture['router']:,} more."
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
    other = next((name for name in results.rows if name != "shipped"), None)
    one, shipped = (results.line("", name, "router", "test") for name in (other, "shipped"))
    if one and shipped:
        text += f" The demo bank is {Difference.of(shipped, one).than('the LoRA')}, mean over the skills."
    measured = [results.texts(name) for name in ("shipped", other)]
    if all(measured):
        text += f" {over_texts(*measured)}"
    text += " The bank's card has its losses on other held-out sequences."
    return text


def over_texts(shipped: dict[str, list[float]], other: dict[str, list[float]]) -> str:
    """The same two banks text by text, mean over the skills, each skill a stratum."""
    gaps = [np.subtract(shipped[skill], other[skill]) for skill in shipped]
    gap = float(np.mean([each.mean() for each in gaps]))
    half = 1.96 * sqrt(sum(each.var(ddof=1) / len(each) for each in gaps)) / len(gaps)
    verdict = "leaves out" if abs(gap) > half else "holds"
    return (
        f"Over more held-out texts, {len(gaps[0])} sequences a skill, the difference is {gap:+.3f} with a "
        f"95 % interval over the texts of {gap - half:+.3f} to {gap + half:+.3f}, which {verdict} 0: "
        "that is about these two trainings, not about other seeds."
    )


_HEAD = """# Does the mixture earn its keep?

Held-out loss in nats a token, lower is better, on the texts of [examples/skills](../examples/skills)
with SmolLM2-135M-Instruct as the base. This page is written by `python -m benchmarks.quality` from
[the numbers](../benchmarks/results/quality-cpu.json); nothing in it is typed by hand."""
_TABLE = """Mean ± standard deviation over the seeds. A seed draws the texts, their order and the initial
weights anew, for all rows alike, and moves all rows together: where rows have other seeds, compare
them by the last column but one, which takes the difference seed by seed. Rows with a choice made in
hindsight (best for each text, for each token) or with the skill known are marks to compare with, not
ways to run a model. The demo recipe is L-MoE `output` with softmax weights, α/r 12, learning rate
0.001."""
_ROUTING = """Mutual information of skill and expert in the upper half of the layers (at most 3 bits), and the
same with shuffled labels; how many experts the weights of one token, and of all tokens together,
amount to; lights of `gate_health` and dead experts, over all seeds and layers. The rows below
change what their titles say in the demo bank's recipe (α/r 12, learning rate 0.001); the second
column is the difference from it, seed by seed."""
_TRIED = """Both sides were tried with several settings on seed 0, and chosen by other held-out texts than
those of the tables."""
_HOW = """- **one LoRA**: rank N·r, trained on the mixture's very batches, in their order.
- **per-skill LoRAs**: each trained alone on its skill's sequences, steps/N steps: as much data in all.
- **router trained**: a linear router on the frozen per-skill LoRAs, language-modelling and balance
  loss alone, as many further steps as the others have in all: X-LoRA's setting, in one pass.
- **best static blend**: one weight an expert for each skill, by gradient steps on a few of the skill's
  training sequences, measured on its held-out ones.
- **outside seed noise**: the 95 % interval of the mean difference over the seeds (Student's t) leaves
  out 0. Of twenty such statements where there is no difference, one comes out so.

```
python examples/skills/build.py --out data/skills
python -m benchmarks.quality --data data/skills --work runs/quality                # hours on two cores
python -m benchmarks.quality --data data/skills --work runs/quality --scale demo
python -m benchmarks.quality --data data/skills --work runs/quality --report-only  # write this page
```

What is trained is kept in `--work`, and a row that is there is not trained again."""
