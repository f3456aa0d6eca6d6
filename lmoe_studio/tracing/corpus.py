"""A corpus traced in batches, into Parquet parts that are each finished or not there.

    corpus ─► parts of texts ─► batches of like length ─► routed forward ─► frame ─► one file

Memory holds one part at a time. Which texts a part holds depends on the corpus and the bank alone,
so a run that was stopped goes on with the first part that is missing.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from analysis.frames import routing_frame
from lmoe_studio.errors import DataError, OverflowedError
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.mixture.call import RoutingRecord
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.quantisation import quantised_as
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.tracing.batches import batches_of_like_length, padded
from lmoe_studio.tracing.corpus_files import Corpus, CorpusFile, LabelledText, Survey, survey
from lmoe_studio.tracing.corpus_parts import (
    CorpusRun,
    PartCounts,
    counts_of,
    open_run,
    write_part,
)
from lmoe_studio.tracing.recorder import settle_prompt
from lmoe_studio.tracing.records import FloatArray
from lmoe_studio.tracing.token_texts import TokenTexts

PART_CELLS = 2_000_000
"""Rows of a part: what bounds the memory."""
_BATCH_TOKENS = {"cpu": 2048}
_BATCH_TOKENS_ELSEWHERE = 16384
_FORMAT = 1


@dataclass(frozen=True)
class CorpusOptions:
    """What of each text is traced, and how."""

    plan: RoutingPlan | None = None
    max_tokens: int | None = None
    """Cut longer texts to this; what the model can read bounds it anyway."""
    contributions: bool = False
    """Also keep how much each expert added."""
    scores: bool = False
    """Also keep the routers' logits, probabilities and, under a plan, own weights."""

    @property
    def dropped(self) -> list[str]:
        """Columns of the routing frame that are not kept."""
        if not self.scores:
            return ["logit", "prob", "router_weight"]
        return [] if self.plan else ["router_weight"]  # without a plan it is the weight


@dataclass(frozen=True)
class CorpusProgress:
    """How far a run is."""

    texts: int
    of_texts: int
    tokens: int
    characters: int
    of_characters: int

    @property
    def share(self) -> float:
        """What is done, 0 to 1, by length."""
        return self.characters / self.of_characters


@dataclass(frozen=True)
class CorpusTracer:
    """Runs corpora through a model."""

    model: MixtureModel
    texts: TokenTexts
    encode: Callable[[LabelledText], list[int]]
    context_length: int
    turn: AbstractContextManager[Any]
    """Held during each forward pass: others may use the model between batches."""

    def run(
        self,
        corpus: Corpus,
        out: Path,
        options: CorpusOptions,
        *,
        run: str | None,
        on_progress: Callable[[CorpusProgress], None],
        should_stop: Callable[[], bool],
    ) -> CorpusRun:
        """Trace what is not traced yet; see `Studio.trace_corpus`."""
        found = survey(corpus)
        folder = open_run(out, run, self._config(corpus, found, options))
        name = folder.name.removeprefix("run=")
        done = PartCounts()

        def tell(counts: PartCounts) -> None:
            on_progress(
                CorpusProgress(
                    counts.texts, found.texts, counts.tokens, counts.characters, found.characters
                )
            )

        def so_far(is_finished: bool) -> CorpusRun:
            return CorpusRun(
                out, name, done.texts, done.tokens, done.cut, done.unlabelled, is_finished
            )

        for index, rows in enumerate(self._parts(corpus, options)):
            path = folder / f"part-{index:05}.parquet"
            counts = counts_of(path)
            if counts is None:
                traced = dict[int, _TracedText]()
                within = done
                for batch in self._batches(rows):
                    if should_stop():
                        return so_far(is_finished=False)
                    traced |= self._trace(batch, name, options)
                    within = within.plus(_counts(batch))
                    tell(within)
                counts = _counts(rows)
                if counts.tokens:
                    write_part(path, _table(rows, traced, options.dropped), counts)
            done = done.plus(counts)
            tell(done)
        if not done.tokens:
            raise DataError("The corpus holds no tokens; give it a text that is not blank.")
        return so_far(is_finished=True)

    def _parts(self, corpus: Corpus, options: CorpusOptions) -> Iterator[list["_Row"]]:
        limit = min(options.max_tokens or self.context_length, self.context_length)
        most = max(1, PART_CELLS // (len(self.model.sites) * len(self.model.bank.experts)))
        rows, tokens = list[_Row](), 0
        for sequence, item in enumerate(corpus):
            ids = self.encode(item)
            row = _Row(sequence, ids[:limit], item.label, len(item.text), len(ids) > limit)
            if rows and tokens + len(row.ids) > most:
                yield rows
                rows, tokens = [], 0
            rows.append(row)
            tokens += len(row.ids)
        yield rows

    def _batches(self, rows: list["_Row"]) -> list[list["_Row"]]:
        device = next(self.model.parameters()).device.type
        most = _BATCH_TOKENS.get(device, _BATCH_TOKENS_ELSEWHERE)
        return batches_of_like_length(rows, lambda row: len(row.ids), most)

    @torch.inference_mode()
    def _trace(
        self, rows: list["_Row"], run: str, options: CorpusOptions
    ) -> dict[int, "_TracedText"]:
        device = next(self.model.parameters()).device
        ids, mask = padded([row.ids for row in rows])
        with self.turn:
            output = self.model(
                ids.to(device),
                None if mask is None else mask.to(device),
                plan=[settle_prompt(options.plan, self.texts, row.ids) for row in rows]
                if options.plan
                else None,
                record=True,
                contributions=options.contributions,
                logits_to_keep=1,  # the routing is asked for, not the next token
            )
        assert output.routing is not None
        arrays = _arrays(output.routing, options)
        return {
            row.sequence: self._traced(row, run, index, arrays) for index, row in enumerate(rows)
        }

    def _traced(
        self, row: "_Row", run: str, index: int, arrays: dict[str, NDArray[Any] | None]
    ) -> "_TracedText":
        sites, count = self.model.sites, len(row.ids)
        modules = tuple(site.module for site in sites if site.module)
        token_ids = np.array(row.ids, np.int32)
        own = {name: None if a is None else a[index, :count] for name, a in arrays.items()}
        for name in ("routing_weights", "contributions"):
            if (kept := own[name]) is not None and not np.isfinite(kept).all():
                raise OverflowedError(count)
        return _TracedText(
            run=run,
            experts=self.model.bank.expert_names,
            site_layers=tuple(site.layer for site in sites),
            site_modules=modules or None,
            token_ids=token_ids,
            tokens=self.texts.sequence(row.ids),
            generated=np.zeros(count, np.bool_),
            special=np.isin(token_ids, self.texts.special_ids),
            **own,  # pyright: ignore[reportArgumentType]  (one dict for arrays with and without)
        )

    def _config(self, corpus: Corpus, found: Survey, options: CorpusOptions) -> dict[str, Any]:
        columns = (
            [corpus.text_column, corpus.label_column] if isinstance(corpus, CorpusFile) else None
        )
        return {
            "format": _FORMAT,
            "bank": self.model.bank.name,
            "bank_sha256": _digest(self.model.bank),
            "base": self.model.bank.base.id,
            "weights": quantised_as(self.model.base) or str(self.model.base.dtype),
            "data_sha256": found.sha256,
            "columns": columns,
            "texts": found.texts,
            "labels": found.labels,
            "plan": options.plan.to_json() if options.plan else None,
            "max_tokens": options.max_tokens,
            "contributions": options.contributions,
            "scores": options.scores,
        }


@dataclass(frozen=True)
class _Row:
    """A text of the corpus, as token ids."""

    sequence: int
    ids: list[int]
    label: str | None
    characters: int
    is_cut: bool


@dataclass(frozen=True)
class _TracedText:
    """What `routing_frame` needs of a trace."""

    run: str
    experts: tuple[str, ...]
    site_layers: tuple[int, ...]
    site_modules: tuple[str, ...] | None
    token_ids: NDArray[np.int32]
    tokens: tuple[str, ...]
    generated: NDArray[np.bool_]
    special: NDArray[np.bool_]
    router_logits: FloatArray
    router_probs: FloatArray
    router_weights: FloatArray
    routing_weights: FloatArray
    overridden: NDArray[np.bool_]
    contributions: FloatArray | None = None


def _counts(rows: list[_Row]) -> PartCounts:
    return PartCounts(
        texts=len(rows),
        tokens=sum(len(row.ids) for row in rows),
        characters=sum(row.characters for row in rows),
        cut=sum(row.is_cut for row in rows),
        unlabelled=sum(row.label is None for row in rows),
    )


def _table(rows: list[_Row], traced: dict[int, _TracedText], dropped: list[str]) -> pa.Table:
    """The routing frame of a part and its labels; `run` is in the folder's name."""
    kept = [row for row in rows if row.ids]
    frame = routing_frame([traced[row.sequence] for row in kept])
    each = len(frame) // sum(len(row.ids) for row in kept)  # rows of a token
    cells = [len(row.ids) * each for row in kept]
    frame["sequence"] = np.repeat([row.sequence for row in kept], cells)
    table = pa.Table.from_pandas(frame.drop(columns=["run", *dropped]), preserve_index=False)
    place = table.column_names.index("token")
    table = table.set_column(place, "token", table.column("token").dictionary_encode())
    labels = pa.array([row.label for row in kept], pa.string()).dictionary_encode()
    label = labels.take(pa.array(np.repeat(np.arange(len(kept)), cells)))
    return table.add_column(1, "label", label)


def _arrays(routing: RoutingRecord, options: CorpusOptions) -> dict[str, NDArray[Any] | None]:
    changed = routing.weights != routing.router_weights
    weights = _array(routing.weights)  # also stands for columns that are dropped again
    return {
        "router_logits": _array(routing.logits) if options.scores else weights,
        "router_probs": _array(routing.probs) if options.scores else weights,
        "router_weights": _array(routing.router_weights) if options.scores else weights,
        "routing_weights": weights,
        "overridden": changed.cpu().numpy(),
        "contributions": None if routing.contributions is None else _array(routing.contributions),
    }


def _array(tensor: torch.Tensor) -> FloatArray:
    return tensor.float().cpu().numpy()


def _digest(bank: ExpertBank) -> str:
    """sha256 of the experts' and the router's tensors: tells two checkpoints of a bank apart."""
    digest = sha256(repr((bank.expert_names, bank.composition, bank.router)).encode())
    for expert in bank.experts:
        for name, factor in sorted(expert.adapter.factors.items()):
            digest.update(f"{name} {factor.scale}".encode())
            for tensor in (factor.a, factor.b):
                digest.update(tensor.float().numpy().tobytes())
    for name, tensor in sorted(bank.router_state.items()):
        digest.update(name.encode())
        digest.update(tensor.float().numpy().tobytes())
    return digest.hexdigest()
