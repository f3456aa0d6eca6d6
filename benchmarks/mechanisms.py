"""How far published mechanisms are from their reference numbers here: the table of docs/mechanisms.md.

    python -m benchmarks.mechanisms        # writes it

The reference numbers are the tests' (`tests/mechanisms/*.json`), in float64; what is run is the pure
function that the router of that kind uses.
"""

import json
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lmoe_studio.routing.branches import LevelGate, branch_logits, choices, node_weights
from lmoe_studio.routing.gates import above_threshold, activated, largest, learned_threshold
from lmoe_studio.routing.layer_code import layer_code
from lmoe_studio.routing.mlp import relu_logits, swiglu_logits
from lmoe_studio.routing.neighbours import nearest, squared_distances, votes
from lmoe_studio.routing.pooling import pooled
from lmoe_studio.routing.pre import id_states
from lmoe_studio.routing.typed import typed_scores

_ROOT = Path(__file__).parent.parent
PAGE = _ROOT / "docs" / "mechanisms.md"
_BEGIN, _END = "<!-- written by python -m benchmarks.mechanisms -->\n", "<!-- end -->\n"

Pairs = Iterator[tuple[Tensor, Tensor]]
"""Found and expected."""


class Mechanism(NamedTuple):
    """A row of the table."""

    preset: str
    paper: str
    asks: str
    compared: str
    pairs: Callable[[], Pairs]

    def difference(self) -> float:
        """The largest absolute difference from the reference numbers."""
        return max(float((found - expected).abs().max()) for found, expected in self.pairs())


def _moiie() -> Pairs:
    for case in _cases("moiie").values():
        inputs, expected = case["inputs"], case["outputs"]
        types = inputs["types"].long()
        logits = typed_scores(inputs["hidden"], types, inputs["weight"])
        probs = activated(logits, allowed=inputs["allowed"].bool()[types])
        yield probs, expected["probs"]
        yield largest(probs, int(inputs["top_k"])), expected["weights"]


def _moa() -> tuple[Tensor, Tensor, dict[str, Any]]:
    case = _cases("moa")["gates"]
    inputs, p = case["inputs"], case["inputs"]["parameters"]
    parts = (p[f"router.{part}"] for part in ("w1", "b1", "w3", "b3", "w2", "b2"))
    soft = activated(swiglu_logits(inputs["hidden"], *parts), "sigmoid")
    limit = float(inputs["max_threshold"])
    threshold = learned_threshold(inputs["hidden"], p["threshold.w"], p["threshold.b"], limit)
    return soft, threshold, case["outputs"]


def _moa_soft() -> Pairs:
    soft, _, expected = _moa()
    yield soft, expected["soft"]


def _moa_sparse() -> Pairs:
    soft, threshold, expected = _moa()
    yield threshold, expected["threshold"]
    yield above_threshold(soft, threshold), expected["sparse"]


def _smore() -> Pairs:
    smore, order = _cases("smore"), (1, 0)
    p = smore["parameters"]
    parts = ("w1", "b1", "w2", "b2", "keys")
    gates = [LevelGate(*(p[f"gate.{level}.{part}"] for part in parts)) for level in order]
    query = F.linear(smore["inputs"]["x"], p["down"], p["down_bias"])
    for style in ("switch", "dense", "cosine"):
        fan_outs = (4, 4) if style == "dense" else smore["inputs"]["fanout"].int().tolist()
        found = node_weights(
            choices(branch_logits(query, gates, cosine=style == "cosine"), fan_outs)
        )
        for token, weights in zip(smore[style], found, strict=True):
            yield weights, torch.cat([token["node_weights"][str(level)] for level in order])


def _wemoe() -> Pairs:
    case = _cases("wemoe")["sequence"]
    yield from _blends(case["inputs"]["hidden"], case)


def _e_wemoe() -> Pairs:
    case = _cases("wemoe")["shared"]
    inputs = case["inputs"]
    width, layer = int(inputs["code_width"]), int(inputs["layer"])
    code = layer_code(layer, inputs["hidden"], width)
    code = code.expand(*inputs["hidden"].shape[:-1], -1)
    yield from _blends(torch.cat([code, inputs["hidden"]], dim=-1), case)


def _blends(read: Tensor, case: dict[str, Any]) -> Pairs:
    gate = case["inputs"]["gate"]
    scores = relu_logits(read, gate["w1"], gate["b1"], gate["w2"], gate["b2"])
    every = torch.ones(scores.shape[:2], dtype=torch.bool)
    found, _ = pooled(scores, every, "prompt", {})
    yield found, case["outputs"]["weights"][:, None].expand_as(found)


def _read_me() -> Pairs:
    case = _cases("readme")["pre_router"]
    inputs, p = case["inputs"], case["inputs"]["parameters"]
    ids = inputs["ids"].long()[None]
    states = id_states(
        ids,
        torch.arange(ids.shape[1])[None],
        torch.ones_like(ids, dtype=torch.bool),
        p,
        layers=int(inputs["layers"]),
        heads=int(inputs["heads"]),
        theta=float(inputs["theta"]),
        normaliser=float(inputs["normaliser"]),
    )
    yield F.linear(states, p["out"], p["out_bias"])[0], case["outputs"]["logits"]


def _rtd() -> Pairs:
    inputs, expected = _cases("rtd")["inputs"], _cases("rtd")["outputs"]
    count, temperature = int(inputs["labels"]), float(inputs["temperature"])
    for heads, name in ((1, "probs"), (int(inputs["heads"]), "multi_head_mean")):
        near = nearest(squared_distances(inputs["query"], inputs["keys"], heads), int(inputs["k"]))
        yield votes(near, inputs["values"].long(), count, temperature).mean(-2), expected[name]


MECHANISMS = (
    Mechanism(
        "moiie", "2508.09779", "Do questions and answers want different experts, and what do they share?",
        "probabilities and weights, 4 and 8 experts", _moiie,
    ),
    Mechanism(
        "moa-soft", "2506.05928", "Which experts does a token want if they do not compete?",
        "weights", _moa_soft,
    ),
    Mechanism(
        "moa-sparse", "2506.05928", "How many experts can a token do without?",
        "thresholds and weights", _moa_sparse,
    ),
    Mechanism(
        "smore", "2504.06426", "Is there a hierarchy in the skills, or would a flat mixture do?",
        "weights of all nodes, three gates", _smore,
    ),
    Mechanism(
        "wemoe", "2402.00433", "Does routing need tokens, or is one blend a text enough?",
        "blends", _wemoe,
    ),
    Mechanism(
        "e-wemoe", "2410.21804", "What does it cost to have one router for all layers?",
        "blends, with the layer's number", _e_wemoe,
    ),
    Mechanism(
        "read-me", "2410.19123", "Is routing lexical: can it be known before the base model runs?",
        "logits", _read_me,
    ),
    Mechanism(
        "rtd", "2409.20181", "Are the skills apart in the base's own states, with nothing trained?",
        "votes, one and several heads", _rtd,
    ),
)  # fmt: skip


def table() -> str:
    """The rows, as Markdown; a difference as the power of ten that it is well below anywhere."""
    lines = [
        "| preset | paper | what it asks | compared | difference below |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in MECHANISMS:
        bound = 10.0 ** math.ceil(math.log10(max(8 * one.difference(), 1e-15)))
        paper = f"[{one.paper}](https://arxiv.org/abs/{one.paper})"
        lines.append(
            f"| [`{one.preset}`](#{one.preset}) | {paper} | {one.asks} | {one.compared} | {bound:.0e} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table into its page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    PAGE.write_text(f"{before}{_BEGIN}\n{table()}\n{_END}{after}", encoding="utf-8")


@cache
def _cases(mechanism: str) -> dict[str, Any]:
    path = _ROOT / "tests" / "mechanisms" / f"{mechanism}.json"
    return _tensors(json.loads(path.read_text(encoding="utf-8"))["cases"])


def _tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tensors(inner) for key, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict | str):
        return [_tensors(inner) for inner in value]
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
