"""What the tabs show, as Exportables: a trace, the runs of a comparison, a study."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis import site_frame
from analysis.sites import says_something
from lmoe_studio.tracing.files import trace_table
from lmoe_studio.tracing.records import RoutingTrace
from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.exports.exportable import Exportable, Format, Pieces, in_batches
from lmoe_studio.ui.report import report_pieces
from lmoe_studio.ui.studies import KeptStudy

_CELL = "a token, layer and expert"
_PART = "\ufffd"
"""A token that is a part of a character: see `RoutingTrace.tokens`."""


def trace_export(trace: RoutingTrace) -> Exportable:
    """A trace, every cell of it; its Parquet is read by `load_trace`. Text that was written, too."""
    written: dict[Format, Pieces] = {"txt": [lambda: clean(_text_of(trace))]}
    return Exportable(
        f"trace-{_file_name(trace.bank)}",
        _CELL,
        trace.routing_weights.size,
        lambda most: in_batches(_table_of(trace), most),
        written if trace.generated.any() else {},
    )


def trace_exports(trace: RoutingTrace, name: str) -> dict[str, Exportable]:
    """A trace by that name, and its sites where they say more than that weights sum to 1."""
    found = {name: trace_export(trace)}
    weights = trace.routing_weights
    if trace.notes or says_something((weights != 0).sum(axis=-1), weights.sum(axis=-1)):
        found["router sites"] = sites_export(trace)
    return found


def sites_export(trace: RoutingTrace) -> Exportable:
    """How many experts act on each token, with what weight in all, and what the routers noted."""
    positions, sites = trace.routing_weights.shape[:2]
    row = "a token and layer" + ("" if trace.site_modules is None else " and module")

    def batches(most: int) -> Iterator[pa.Table]:
        yield from in_batches(
            pa.Table.from_pandas(site_frame(_cleaned(trace)), preserve_index=False), most
        )

    return Exportable(f"sites-{_file_name(trace.bank)}", row, positions * sites, batches)


def runs_export(traces: Mapping[str, RoutingTrace]) -> Exportable:
    """The traces of runs by name, one after the other; the name is the column `plan`."""

    def batches(most: int) -> Iterator[pa.Table]:
        for number, trace in enumerate(traces.values()):
            table = _table_of(trace).replace_schema_metadata(None)
            codes = np.full(len(table), number, np.int8)
            plans = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(list(traces)))
            yield from in_batches(table.add_column(0, "plan", plans), most)

    count = sum(trace.routing_weights.size for trace in traces.values())
    bank = next(iter(traces.values())).bank
    return Exportable(f"comparison-{_file_name(bank)}", f"{_CELL} of each run", count, batches)


def table_export(table: pd.DataFrame, *, stem: str, row: str) -> Exportable:
    """A frame."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    return Exportable(stem, row, len(arrow), lambda most: in_batches(arrow, most))


def study_export(kept: KeptStudy) -> Exportable:
    """The run that was studied, its name in the column `run`, and the report."""
    parts = sorted((kept.runs / f"run={kept.run}").glob("part-*.parquet"))

    def batches(most: int) -> Iterator[pa.Table]:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(batch_size=most):
                    table = pa.Table.from_batches([batch])
                    name = pa.array([kept.run] * len(table)).dictionary_encode()
                    yield table.add_column(0, "run", name).replace_schema_metadata(None)

    count = sum(pq.read_metadata(part).num_rows for part in parts)
    return Exportable("routing", _CELL, count, batches, {"html": report_pieces(kept.study)})


def _table_of(trace: RoutingTrace) -> pa.Table:
    return trace_table(_cleaned(trace))


def _cleaned(trace: RoutingTrace) -> RoutingTrace:
    """Arrow takes no lone surrogates."""
    names = {name: tuple(map(clean, getattr(trace, name))) for name in ("tokens", "experts")}
    return replace(trace, **names)


def _text_of(trace: RoutingTrace) -> str:
    """Without special tokens; a character that came in parts is with the last of them."""
    return "".join(
        token
        for token, special in zip(trace.tokens, trace.special, strict=True)
        if not special and token != _PART
    )


def _file_name(bank: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", Path(bank).name).strip("-") or "bank"
