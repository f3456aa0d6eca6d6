"""Published layers as a bank of experts and a router, through a whole pass of the mixture (float32)."""

import pytest
import torch
from mechanisms.replica import FLOAT32, ONE, WIDTH, Replica, mixture, run, states_of, widened
from mechanisms.vectors import cases

from lmoe_studio.routing.settings import RouterSettings, Threshold

FIRST = "layers.{}.first"


def names(count):
    return [f"expert {number}" for number in range(count)]


def close(found, expected):
    torch.testing.assert_close(found.double(), expected, **FLOAT32)


@pytest.mark.parametrize("case", ["n4", "n8"])
def test_moiie(case):
    inputs, expected = cases("moiie")[case]["inputs"], cases("moiie")[case]["outputs"]
    weight, experts = inputs["weight"], inputs["experts"]
    called = names(weight.shape[1])
    types = [
        {
            "name": name,
            "tokens": (inputs["types"] == number).nonzero().flatten().tolist(),
            "experts": [called[i] for i in inputs["allowed"][number].nonzero().flatten()],
        }
        for number, name in enumerate(inputs["type_names"])
    ]
    router = RouterSettings(kind="typed", top_k=inputs["top_k"], options={"types": types})
    own = torch.cat([torch.zeros_like(weight[:1]), weight])  # of no type, none here
    base = Replica(states_of(inputs["hidden"]))
    base.layers[0].first.weight.zero_()
    model = mixture(
        base,
        {
            name: {FIRST.format(0): (widened(a, a.shape[0]), widened(b, WIDTH, b.shape[1]), scale)}
            for name, a, b, scale in zip(
                called, experts["a"], experts["b"], experts["scale"].tolist(), strict=True
            )
        },
        router,
        {"layers.0.weight": widened(own, own.shape[1]), "layers.0.bias": own[..., 0] * 0},
    )
    out = run(model, 1)
    close(out.routing.weights[0, :, 0], expected["weights"])
    close(out.routing.probs[0, :, 0], expected["probs"])
    close(out.logits[0, :, :5], expected["y"])


@pytest.mark.parametrize("style", ["switch", "dense", "cosine"])
def test_smore(style):
    smore = cases("smore")
    p, tokens = smore["parameters"], smore[style]
    fan_outs = [None, None] if style == "dense" else smore["inputs"]["fanout"].tolist()
    levels = {1: ["top 0", "top 1", "top 2", "top 3"], 0: ["leaf 0", "leaf 1", "leaf 2", "leaf 3"]}
    router = RouterSettings(
        kind="tree",
        options={
            "levels": [
                {"experts": levels[level], "fan_out": fan_out}
                for level, fan_out in zip((1, 0), fan_outs, strict=True)
            ],
            "gate": "cosine" if style == "cosine" else "dot",
            "width": 3,
            "key": 4,
        },
    )
    carried = {1: p["out"], 0: p["out"] @ p["w.1"]}
    experts = {  # in an order of the bank's own
        levels[level][node]: {
            FIRST.format(0): (
                widened(p[f"a.{level}"][node], 2),
                widened(carried[level] @ p[f"b.{level}"][node], WIDTH, 2),
                1.0,
            )
        }
        for node in (2, 0, 3, 1)
        for level in (0, 1)
    }
    state = {"layers.0.query": widened(p["down"], 3), "layers.0.query_bias": p["down_bias"]}
    for depth, level in enumerate((1, 0)):
        for part in ("w1", "b1", "w2", "b2", "keys"):
            state[f"layers.0.levels.{depth}.{part}"] = p[f"gate.{level}.{part}"]
    base = Replica(states_of(smore["inputs"]["x"]))
    base.layers[0].first.weight.zero_()
    model = mixture(base, experts, router, state)
    out = run(model, 1)
    for name, found in zip(
        model.bank.expert_names, out.routing.weights[0, :, 0].unbind(-1), strict=True
    ):
        level, node = ("1" if name[:3] == "top" else "0"), int(name[-1])
        close(found, torch.stack([one["node_weights"][level][node] for one in tokens]))
    close(out.logits[0, :, :5], torch.stack([one["y_identity_no_bias"] for one in tokens]))


def test_the_gates_of_moa():
    case = cases("moa")["gates"]
    inputs, expected = case["inputs"], case["outputs"]
    p = inputs["parameters"]
    state = {f"layers.0.{part}": p[f"router.{part}"] for part in ("b1", "b3", "w2", "b2")}
    for part in ("w1", "w3"):
        state[f"layers.0.{part}"] = widened(p[f"router.{part}"], 5)
    options = {"form": "swiglu", "width": 5}
    nothing = {FIRST.format(0): (torch.zeros(1, WIDTH), torch.zeros(WIDTH, 1), 1.0)}
    experts = dict.fromkeys(names(7), nothing)
    soft = RouterSettings(kind="mlp", activation="sigmoid", options=options)
    out = run(mixture(Replica(states_of(inputs["hidden"])), experts, soft, state), 1)
    close(out.routing.logits[0, :, 0], expected["logits"])
    close(out.routing.weights[0, :, 0], expected["soft"])
    state["layers.0.threshold.weight"] = widened(p["threshold.w"], 1)
    state["layers.0.threshold.bias"] = p["threshold.b"]
    for rule, name in (("keep", "sparse"), ("margin", "margin")):
        threshold = Threshold(limit=inputs["max_threshold"], rule=rule)
        sparse = RouterSettings(
            kind="mlp", activation="sigmoid", threshold=threshold, options=options
        )
        out = run(mixture(Replica(states_of(inputs["hidden"])), experts, sparse, state), 1)
        close(out.routing.weights[0, :, 0], expected[name])
        close(out.routing.notes["threshold"][0, :, 0], expected["threshold"])


def mlp_with(base, deltas, block):
    """Put a two-layer MLP with biases into a block, and its task vectors into experts of full rank."""
    layer = base.layers[block]
    layer.activation = torch.nn.ReLU()
    for linear, number in ((layer.first, 1), (layer.second, 2)):
        own = cases("wemoe")["sequence"]["inputs"]["base"]
        linear.weight.data = with_bias(own[f"w{number}"], own[f"b{number}"])
        linear.weight.data[ONE, ONE] = 1
    return {
        name: {
            f"layers.{block}.{part}": (
                torch.eye(WIDTH),
                with_bias(deltas[f"w{number}"][i], deltas[f"b{number}"][i]),
                1.0,
            )
            for part, number in (("first", 1), ("second", 2))
        }
        for i, name in enumerate(names(3))
    }


def with_bias(weight, bias):
    found = widened(weight, WIDTH)
    found[: len(bias), ONE] = bias
    return found


def test_wemoe():
    case = cases("wemoe")["sequence"]
    inputs, expected = case["inputs"], case["outputs"]
    router = RouterSettings(
        kind="mlp", activation="identity", pool="prompt", options={"form": "relu", "width": 4}
    )
    gate = inputs["gate"]
    state = {f"layers.0.{part}": gate[part] for part in ("b1", "w2", "b2")}
    state["layers.0.w1"] = widened(gate["w1"], 4)
    base = Replica(states_of(inputs["hidden"].flatten(0, 1)))
    model = mixture(base, mlp_with(base, inputs["deltas"], 0), router, state)
    out = run(model, 2)
    close(out.routing.weights[:, :, 0], expected["weights"][:, None].expand(-1, 3, -1))
    close(out.logits[..., :4], expected["y"])


def test_wemoe_with_one_gate_for_all_layers():
    case = cases("wemoe")["shared"]
    inputs, expected = case["inputs"], case["outputs"]
    router = RouterSettings(
        kind="mlp", scope="tied", activation="identity", pool="prompt",
        layer_code=inputs["code_width"], options={"form": "relu", "width": 8},
    )  # fmt: skip
    gate, code = inputs["gate"], inputs["code_width"]
    state = {f"tied.{part}": gate[part] for part in ("b1", "w2", "b2")}
    state["tied.w1"] = widened(gate["w1"], 8, WIDTH + code)
    base = Replica(states_of(inputs["hidden"].flatten(0, 1)), blocks=4)
    model = mixture(base, mlp_with(base, expected["pruned"], inputs["layer"]), router, state)
    out = run(model, 2)
    close(out.routing.weights[:, :, -1], expected["weights"][:, None].expand(-1, 3, -1))
    close(out.logits[..., :4], expected["y"])
