"""Losses of a corpus, by label: under the router, without it, under each expert alone.

    corpus ─► texts of like length ─► one pass a few plans ─► sums by label

Memory holds some texts at a time, and of each pass the losses only.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmoe_studio.causal.oracle import alone, oracle, usual_plans
from lmoe_studio.causal.token_losses import token_losses
from lmoe_studio.errors import ConfigError, DataError, OverflowedError
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.routing.settle import needs_text
from lmoe_studio.tracing.batches import batches_of_like_length
from lmoe_studio.tracing.corpus import CorpusProgress
from lmoe_studio.tracing.corpus_files import Corpus, LabelledText, survey
from lmoe_studio.tracing.recorder import settle_prompt
from lmoe_studio.tracing.token_texts import TokenTexts

BEST_PER_TEXT, BEST_PER_TOKEN = "best expert per text", "best expert per token"
_BATCH_TOKENS = 2048
_GROUP_TOKENS = 65_536  # tokens of the texts that are sorted by length together


@dataclass(frozen=True)
class CorpusLosses:
    """What a corpus costs under each plan."""

    frame: pd.DataFrame
    """One row for each label and plan: label (None for texts without one), plan, loss (nats a
    token, NaN where there are no tokens), tokens (counted: all but each text's first), texts."""
    texts: int
    tokens: int
    cut: int
    """Texts that were longer than the model reads, or than asked for."""
    unlabelled: int
    hindsight: str = ""
    """What makes a router's losses look better than they are; see `MixtureModel.hindsight`."""

    def table(self) -> pd.DataFrame:
        """Plans × labels, and `mean` over the labels, each counting the same.

        Where a label of the corpus has one of the names that the table gives, `mean`,
        `(no label)` or `all texts`, the table's own is followed by an apostrophe.
        """
        labels = set(self.frame["label"].dropna())
        missing = _free("all texts" if self.unlabelled == self.texts else "(no label)", labels)
        named = self.frame.assign(label=self.frame["label"].fillna(missing))
        table = named.pivot(index="plan", columns="label", values="loss")
        table = table.reindex(index=named["plan"].unique(), columns=named["label"].unique())
        table.columns.name = table.index.name = None
        if table.shape[1] > 1:
            table[_free("mean", labels)] = np.nanmean(table.to_numpy(np.float64), axis=1)
        return table


def _free(name: str, taken: set[str]) -> str:
    """The name, with as many apostrophes as it takes to be no label."""
    while name in taken:
        name += "'"
    return name


@dataclass(frozen=True)
class CorpusEvaluator:
    """Runs corpora through a model under the usual plans."""

    model: MixtureModel
    texts: TokenTexts
    encode: Callable[[LabelledText], list[int]]
    context_length: int
    turn: AbstractContextManager[object]
    """Entered for each forward pass: others may use the model in between."""

    def run(
        self,
        corpus: Corpus,
        *,
        plans: Mapping[str, RoutingPlan | None],
        max_tokens: int | None,
        on_progress: Callable[[CorpusProgress], None],
    ) -> CorpusLosses:
        """See `Studio.evaluate`."""
        usual = usual_plans(self.model.bank.expert_names)
        if taken := sorted({*usual, BEST_PER_TEXT, BEST_PER_TOKEN} & plans.keys()):
            raise ConfigError(
                f"A plan is named '{taken[0]}', as one that is compared anyway; give it another name."
            )
        found = survey(corpus)
        tried = usual | dict(plans)
        tally = _Tally(tuple(tried), self.model.bank.expert_names)
        read = 0
        for group in self._groups(corpus, max_tokens):
            for row in group:
                tally.count(row)
            for batch in batches_of_like_length(group, _Row.predicted, _BATCH_TOKENS):
                sequences = [row.ids for row in batch]
                asked = [self._settled(plan, sequences) for plan in tried.values()]
                losses = token_losses(self.model, sequences, asked, turn=self.turn)
                for row, loss in zip(batch, losses, strict=True):
                    if not loss.isfinite().all():
                        raise OverflowedError(len(row.ids))
                    tally.add(row, loss.double().numpy())
                read += sum(row.characters for row in batch)
                on_progress(
                    CorpusProgress(tally.texts, found.texts, tally.tokens, read, found.characters)
                )
        if not tally.tokens:
            raise DataError(
                "The corpus has no text of two tokens or more; the first token of a text has "
                "nothing that could foretell it."
            )
        return replace(tally.result(), hindsight=self.model.hindsight)

    def _groups(self, corpus: Corpus, max_tokens: int | None) -> Iterator[list["_Row"]]:
        limit = min(max_tokens or self.context_length, self.context_length)
        group, tokens = list[_Row](), 0
        for item in corpus:
            ids = self.encode(item)
            group.append(_Row(ids[:limit], item.label, len(item.text), len(ids) > limit))
            tokens += len(group[-1].ids)
            if tokens >= _GROUP_TOKENS:
                yield group
                group, tokens = [], 0
        if group:
            yield group

    def _settled(
        self, plan: RoutingPlan | None, sequences: list[list[int]]
    ) -> RoutingPlan | list[RoutingPlan | None] | None:
        if plan is None or not needs_text(plan):
            return plan
        return [settle_prompt(plan, self.texts, ids) for ids in sequences]


@dataclass(frozen=True)
class _Row:
    ids: list[int]
    label: str | None
    characters: int
    is_cut: bool

    def predicted(self) -> int:
        """Length as far as there is something to foretell."""
        return len(self.ids) if len(self.ids) > 1 else 0


@dataclass
class _Tally:
    """Sums of losses by label."""

    plans: tuple[str, ...]
    experts: tuple[str, ...]
    texts: int = 0
    cut: int = 0
    sums: dict[str | None, NDArray[np.float64]] = field(default_factory=dict)
    counts: dict[str | None, list[int]] = field(default_factory=dict)
    """Tokens and texts by label."""

    @property
    def tokens(self) -> int:
        return sum(tokens for tokens, _ in self.counts.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Of the plans, and of what is found in hindsight where there are experts to choose from."""
        hindsight = (BEST_PER_TEXT, BEST_PER_TOKEN) if len(self.experts) > 1 else ()
        return self.plans + hindsight

    def count(self, row: _Row) -> None:
        self.texts += 1
        self.cut += row.is_cut
        self.sums.setdefault(row.label, np.zeros(len(self.names)))
        self.counts.setdefault(row.label, [0, 0])[1] += 1

    def add(self, row: _Row, losses: NDArray[np.float64]) -> None:
        """Take in the losses `[plan, token]` of a text."""
        sums = list(losses.sum(axis=1))
        if len(self.experts) > 1:
            best = oracle(losses[[self.plans.index(alone(name)) for name in self.experts]])
            sums += [best.per_text.sum(), best.per_token.sum()]
        self.sums[row.label] += sums
        self.counts[row.label][0] += losses.shape[1]

    def result(self) -> CorpusLosses:
        rows = [
            {
                "label": label,
                "plan": plan,
                "loss": total / tokens if tokens else np.nan,
                "tokens": tokens,
                "texts": texts,
            }
            for label, (tokens, texts) in self.counts.items()
            for plan, total in zip(self.names, self.sums[label], strict=True)
        ]
        _, unlabelled = self.counts.get(None, (0, 0))
        frame = pd.DataFrame(rows).astype({"label": object})
        return CorpusLosses(frame, self.texts, self.tokens, self.cut, unlabelled)
