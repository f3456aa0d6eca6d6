"""A study: what a corpus run says, as sentences, tables and figures; for the tab and the report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from analysis import (
    FrameError,
    active_experts,
    coactivation,
    count_experts,
    expert_tokens,
    expert_usage,
    gate_health,
    label_owners,
    label_shares,
    layer_transitions,
    routing_entropy,
    select,
    specialisation,
)
from analysis.health import DEAD_SHARE, LIVE_SHARE
from analysis.sites import says_something
from lmoe_studio.errors import ConfigError, StorageError
from lmoe_studio.tracing.corpus_parts import read_manifest, read_run, runs_in
from lmoe_studio.ui import figures, findings

SECTIONS = (
    ("labels", "Which expert handles which label",
     "Mean share of the routing in a label's texts, every text counting the same."),
    ("owners", "Where in the network",
     "Of each label the expert whose share is furthest above its mean over the labels."),
    ("specialisation", "How much the routing says about the label",
     "Mutual information of label and expert, beside what labels dealt out at random give: 95 % "
     "of them stay below the dashed line in every layer."),
    ("usage", "How much each expert is used",
     "Mean routing weight; 95 % intervals from drawing the texts anew."),
    ("usage_by_layer", "Usage by layer", "Mean routing weight in each layer."),
    ("entropy", "How sharp the routing is",
     "In nats. Low for one token and high for all together: sharp routing that uses every expert."),
    ("active", "How many experts act",
     "Experts with a weight other than 0, p10 and p90 of them, and the sum of their weights; silent: "
     "share of the tokens that have none, and so the base model alone."),
    ("health", "Health of the routers", f"Collapse shows in the mean over all tokens. live: experts with at least {LIVE_SHARE:.0%} of the "
     f"routing; dead: with less than {DEAD_SHARE:.0%}."),
    ("pairs", "Experts that act together",
     "Among the two largest weights of a token, all pairs; white is chance."),
    ("paths", "Paths through the layers",
     "The top expert of each token, from one shown layer to the next."),
    ("tokens", "Tokens that experts are for",
     "Lift: mean weight on the token over mean weight on all tokens, five occurrences at least."),
)  # fmt: skip
"""Name, title and note of every section, in order."""

_MODEBAR = 34  # pixels above a figure for the buttons that Plotly lays over it

COLUMNS = [
    "sequence",
    "label",
    "position",
    "phase",
    "token",
    "special",
    "layer",
    "expert",
    "weight",
]
"""What a study reads of a run."""
_FLOW_LAYERS = 6


@dataclass(frozen=True)
class Section:
    """One question, its answer as a table, and the picture of it."""

    name: str
    title: str
    note: str
    table: pd.DataFrame
    figure: go.Figure | None = None


@dataclass(frozen=True)
class Study:
    """Everything that is shown of a run."""

    facts: dict[str, str]
    answers: list[str]
    """The findings, as sentences."""
    sections: list[Section]


def study_of_run(
    folder: Path, run: str | None, *, on_step: Callable[[str], None] = lambda _: None
) -> Study:
    """Study a run on disk; `run` may be left out where there is one only.

    Raises:
        StorageError: there is no such run, or it is damaged.
        ConfigError: there are several, and none is named.
    """
    runs = runs_in(folder)
    if run is None and len(runs) > 1:
        raise ConfigError(f"{folder} holds several runs ({', '.join(runs)}); say which.")
    if not runs:
        raise StorageError(f"{folder} holds no run; `lmoe trace --data` writes one.")
    name = run or runs[0]
    on_step("Reading the run")
    frame = read_run(folder, name, COLUMNS)
    return study_of(frame, facts=run_facts(folder, name), on_step=on_step)


def run_facts(folder: Path, run: str) -> dict[str, str]:
    """What a run was, from its manifest, for people."""
    config = read_manifest(folder, run)
    labels = config.get("labels") or {}
    return {
        "Run": run,
        "Bank": str(config.get("bank")),
        "Base model": str(config.get("base")),
        "Texts": f"{config.get('texts'):,}",
        "Labels": ", ".join(f"{name} ({count})" for name, count in labels.items()) or "none",
        "Plan": str(config.get("plan") or "none: the routers decided"),
        "Data": f"sha256 {config.get('data_sha256')}",
    }


def study_of(
    frame: pd.DataFrame,
    *,
    facts: dict[str, str],
    special_tokens: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> Study:
    """Ask every question of a routing frame.

    Args:
        frame: with the columns in `COLUMNS`; of label only where there are labels.
        facts: what the run was, for people.
        special_tokens: count the tokenizer's special tokens too.
        on_step: hears what is being worked out.

    Raises:
        FrameError: the frame is empty or lacks a column.
    """
    frame = select(frame, special_tokens=special_tokens)
    answers, sections = list[str](), list[Section]()
    on_step("Specialisation")
    if frame.get("label") is not None and frame["label"].notna().any():
        found, told = _of_labels(frame)
        sections += found
        answers += told
    else:
        answers.append("The texts have no labels, so nothing can be said of who owns which.")
    for step, ask in (("Usage", _of_usage), ("Pairs and paths", _of_pairs), ("Tokens", _of_tokens)):
        on_step(step)
        found, told = ask(frame)
        sections += found
        answers += told
    for section in sections:
        if section.figure is not None:  # the section's title says it already
            section.figure.update_layout(title=None, margin_t=_MODEBAR)
    return Study(facts, answers, sections)


def _of_labels(frame: pd.DataFrame) -> tuple[list[Section], list[str]]:
    try:
        owners = label_owners(frame)
    except FrameError as error:
        return [], [str(error)]
    by_layer, shares = label_shares(frame, by=("layer",)), label_shares(frame)
    separation = specialisation(frame)
    sections = [
        _section("labels", shares, figures.label_figure(shares)),
        _section("owners", owners, figures.depth_figure(by_layer, owners)),
        _section("specialisation", separation, figures.specialisation_figure(separation)),
    ]
    answers = [*findings.of_owners(owners, shares), findings.of_specialisation(separation)]
    return sections, answers


def _of_usage(frame: pd.DataFrame) -> tuple[list[Section], list[str]]:
    total = expert_usage(frame, by=(), resamples=500)
    usage = expert_usage(frame, by=("layer",))
    entropies = routing_entropy(frame, by=("layer",))
    sections = [
        _section("usage", total, figures.usage_figure(total)),
        _section("usage_by_layer", usage, figures.usage_figure(usage)),
        _section("entropy", entropies, figures.entropy_figure(entropies)),
    ]
    found, told = _of_numbers(frame)
    sections += found
    tokens = _tokens_in(frame)
    if tokens < findings.FEWEST_TOKENS:
        return sections, [*told, findings.too_few(tokens)]
    health = gate_health(frame)
    return [*sections, _section("health", health)], [*told, findings.of_health(health)]


def _of_numbers(frame: pd.DataFrame) -> tuple[list[Section], list[str]]:
    """Nothing of a softmax, where it is always so many and 1 in all."""
    sites = count_experts(frame)
    if not says_something(sites["active"].to_numpy(), sites["mass"].to_numpy()):
        return [], []
    active = active_experts(sites, by=("layer",))
    return [_section("active", active, figures.active_figure(active))], [findings.of_active(active)]


def _tokens_in(frame: pd.DataFrame) -> int:
    one = frame[frame["layer"] == frame["layer"].iloc[0]]
    return len(one[["sequence", "position"]].drop_duplicates())


def _of_pairs(frame: pd.DataFrame) -> tuple[list[Section], list[str]]:
    pairs = coactivation(frame, by=())
    layers = sorted(set(frame["layer"]))
    step = max(1, round((len(layers) - 1) / (_FLOW_LAYERS - 1)))
    some = select(frame, layers=[*layers[:-1:step], layers[-1]])
    paths = layer_transitions(some)
    flow = figures.transitions_figure(paths) if len(paths) else None
    sections = [
        _section("pairs", pairs, figures.coactivation_figure(pairs)),
        _section("paths", paths, flow),
    ]
    return sections, []


def _of_tokens(frame: pd.DataFrame) -> tuple[list[Section], list[str]]:
    tokens = expert_tokens(frame)
    figure = figures.tokens_figure(tokens) if len(tokens) else None
    return [_section("tokens", tokens, figure)], []


def _section(name: str, table: pd.DataFrame, figure: go.Figure | None = None) -> Section:
    title, note = next((title, note) for known, title, note in SECTIONS if known == name)
    return Section(name, title, note, table, figure)
