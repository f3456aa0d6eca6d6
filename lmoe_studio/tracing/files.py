"""Save and load a trace: one Parquet or safetensors file that reads back equal.

The Parquet file is the tidy routing frame, ready for `pandas.read_parquet`, without `router_weight`
where no plan changed anything; what a frame has no columns for stands in its metadata.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from analysis.frames import routing_frame
from lmoe_studio.errors import StorageError
from lmoe_studio.plain_data import read_json
from lmoe_studio.tracing.records import FloatArray, RoutingTrace
from lmoe_studio.whole import whole_file

_KEY = "lmoe_trace"
_CELLS = {
    "router_logits": "logit",
    "router_probs": "prob",
    "router_weights": "router_weight",
    "routing_weights": "weight",
    "overridden": "overridden",
    "contributions": "contribution",
}
"""Fields that the routing frame holds, and its columns for them."""
_OWN = "router_weights"
"""Left out where no plan changed anything: then they are the routing weights."""
_NOTE = "note."
"""Begins the name of an array that a router noted."""
_KINDS = {
    **dict.fromkeys(("token_ids", "ranks", "alternative_ids"), "i"),
    **dict.fromkeys(("generated", "special", "overridden"), "b"),
}
"""NumPy's kind of each array; that of the others is "f"."""


class _Plain(BaseModel, extra="forbid"):
    """What a file holds beside arrays; see `RoutingTrace`."""

    run: str
    bank: str
    base: str
    experts: tuple[str, ...]
    site_layers: tuple[int, ...]
    site_modules: tuple[str, ...] | None
    tokens: tuple[str, ...]
    alternative_tokens: tuple[tuple[str, ...], ...]
    router: str | None = None
    plan: str | None = None
    seed: int | None = None
    versions: dict[str, str] = {}


def save_trace(trace: RoutingTrace, path: Path | str) -> Path:
    """Write a trace; the name's ending, .parquet or .safetensors, says how.

    Raises:
        StorageError: another ending, or the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as staged:
            match path.suffix:
                case ".parquet":
                    _save_parquet(trace, staged)
                case ".safetensors":
                    arrays = {name: value for name, value in _arrays(trace).items() if value.size}
                    save_file(arrays, staged, metadata={_KEY: json.dumps(_plain(trace))})
                case other:
                    raise StorageError(
                        f"A trace is saved as .parquet or .safetensors, not '{other}' "
                        f"({path.name})."
                    )
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.") from None
    return path


def load_trace(path: Path | str) -> RoutingTrace:
    """Read a trace back. Raises StorageError if the file is no trace or damaged."""
    path = Path(path)
    try:
        return _load_parquet(path) if path.suffix == ".parquet" else _load_safetensors(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (LookupError, ValueError, TypeError, AttributeError, pa.ArrowException, SafetensorError):
        raise StorageError(f"{path} is no trace of L-MoE Studio, or is damaged.") from None


def trace_table(trace: RoutingTrace) -> pa.Table:
    """A trace as Arrow: its routing frame, with what that has no columns for in the metadata.

    Written to Parquet, also in several row groups, it is a file that `load_trace` reads.
    """
    table = pa.Table.from_pandas(routing_frame(trace), preserve_index=False)
    arrays = {n: _as_json(a) for n, a in _arrays(trace).items() if n not in _CELLS}
    header = json.dumps({**_plain(trace), "arrays": arrays})
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: header})


def _save_parquet(trace: RoutingTrace, path: Path) -> None:
    table = trace_table(trace)
    if not trace.overridden.any():
        table = table.drop_columns(_CELLS[_OWN])
    pq.write_table(table, path, compression="zstd")


def _load_parquet(path: Path) -> RoutingTrace:
    table = pq.read_table(path)
    plain = read_json((table.schema.metadata or {})[_KEY.encode()])
    arrays = {name: _from_json(value) for name, value in plain.pop("arrays").items()}
    shape = (len(arrays["token_ids"]), len(plain["site_layers"]), len(plain["experts"]))
    for name, column in _CELLS.items():
        if column in table.column_names:
            arrays[name] = table.column(column).to_numpy().reshape(shape)
    return _trace(plain, arrays)


def _load_safetensors(path: Path) -> RoutingTrace:
    with safe_open(path, framework="np") as file:
        plain = read_json((file.metadata() or {})[_KEY])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 no mapping
    shape = (len(arrays["token_ids"]), 0)  # a trace without alternatives has empty arrays
    arrays.setdefault("alternative_ids", np.zeros(shape, np.int32))
    arrays.setdefault("alternative_logprobs", np.zeros(shape, np.float32))
    return _trace(plain, arrays)


def _trace(plain: dict[str, Any], arrays: dict[str, Any]) -> RoutingTrace:
    """Raises ValueError where a value is of another kind than it was when it was written."""
    notes = {n.removeprefix(_NOTE): arrays.pop(n) for n in [*arrays] if n.startswith(_NOTE)}
    for name, array in arrays.items():
        if array.dtype.kind != _KINDS.get(name, "f"):
            raise ValueError(f"{name} holds {array.dtype}")
    if any(note.dtype.kind not in "ifb" for note in notes.values()):
        raise ValueError("a note holds no numbers")
    plain = dict(_Plain.model_validate(plain))
    if _OWN not in arrays:
        arrays[_OWN] = _own_weights(*(arrays[n] for n in (
            "routing_weights", "router_probs", "overridden")))  # fmt: skip
    return RoutingTrace(**plain, **arrays, notes=notes)


def _own_weights(
    weights: FloatArray, probs: FloatArray, overridden: NDArray[np.bool_]
) -> FloatArray:
    """The router's own weights, as far as a file without them tells; NaN where it does not.

    Where a plan changed nothing they are the weights. Where it did they are the probabilities,
    provided that the router keeps all of them: one token that was left alone shows that.
    """
    if not overridden.any():
        return weights
    alone = ~overridden.any(axis=-1)
    keeps_all = (alone & ((weights == probs) & (probs > 0)).all(axis=-1)).any()
    return np.where(overridden, probs if keeps_all else np.float32(np.nan), weights)


def _arrays(trace: RoutingTrace) -> dict[str, np.ndarray[Any, Any]]:
    values = {item.name: getattr(trace, item.name) for item in fields(trace)}
    if not trace.overridden.any():
        del values[_OWN]
    values |= {_NOTE + name: note for name, note in trace.notes.items()}
    return {n: np.ascontiguousarray(v) for n, v in values.items() if isinstance(v, np.ndarray)}


def _plain(trace: RoutingTrace) -> dict[str, Any]:
    values = {item.name: getattr(trace, item.name) for item in fields(trace)}
    return {
        name: value
        for name, value in values.items()
        if not isinstance(value, np.ndarray) and name not in ("contributions", "notes")
    }


def _as_json(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Exact: a float32's shortest decimal form reads back to the same bits; NaN stays NaN."""
    return {"dtype": str(array.dtype), "shape": array.shape, "values": array.ravel().tolist()}


def _from_json(value: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.array(value["values"], dtype=value["dtype"]).reshape(value["shape"])
