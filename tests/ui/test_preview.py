"""What the page is told about a plan over a text that is kept: the plan's weights, or why not."""

from base64 import b64decode

import numpy as np
import pytest
from fake_studio import FakeStudio, make_trace
from tiny_models import make_tiny_studio

from lmoe_studio.routing.plan import Override, RoutingPlan, Span
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.ui.plan_form import plan_overrides
from lmoe_studio.ui.preview import preview_plan
from lmoe_studio.ui.traces import TraceStore

PLANS = [
    RoutingPlan([Override.bias({"sql": 2}), Override.ban("math", tokens={"text": "E"})]),
    RoutingPlan([Override.pin({"sql": 3, "math": -1}, renormalise=False, tokens="generated")]),
    RoutingPlan([Override.temperature(0.5), Override.top_k(1, layers=Span(start=1))]),
]
ROUTERS = [
    RouterSettings(),
    RouterSettings(activation="sigmoid", top_k=2, renormalise=False),
    RouterSettings(scope="module", top_k=1),
    RouterSettings(scope="shared"),
]


def ask(traces, studio, *, user="ann", **question):
    return preview_plan(question, traces, studio, user=user)


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_the_page_gets_the_plans_weights_in_steps_of_a_255th(router):
    studio, traces = make_tiny_studio(router=router), TraceStore()
    for plan in PLANS:
        trace = studio.generate("SELECT a", plan=plan, max_new_tokens=4, trace=True).trace
        key = traces.put("ann", trace)
        answer = ask(traces, studio, id=key, serial=3, overrides=plan_overrides(plan))
        assert (answer["id"], answer["serial"]) == (key, 3)
        shown, ran = answer["shown"], trace.by_layer(trace.routing_weights).clip(min=0)
        steps = np.frombuffer(b64decode(shown["weights"]), np.uint8).reshape(ran.shape)
        np.testing.assert_allclose(steps / 255 * shown["scale"], ran, atol=shown["scale"] / 500)
        bits = np.unpackbits(np.frombuffer(b64decode(shown["overridden"] or ""), np.uint8))
        change = np.abs(trace.routing_weights - trace.router_weights)
        by_how_much = trace.by_layer(change).max(axis=2).ravel()
        assert bits[: by_how_much.size][by_how_much > 1e-5].all()


def test_a_plan_that_changes_nothing_shows_the_routers_own_weights():
    studio, traces = FakeStudio(), TraceStore()
    trace = make_trace(["a", "b"])
    answer = ask(traces, studio, id=traces.put("ann", trace), serial=1, overrides=[])
    assert answer["shown"]["overridden"] is None
    assert answer["shown"]["scale"] == 1


def test_what_cannot_be_previewed_is_answered_with_the_reason():
    studio, traces = FakeStudio(), TraceStore()
    key = traces.put("ann", make_trace(["a", "b"]))
    foreign = traces.put("ann", make_trace(["a"], experts=("x", "y")))
    solo = [{"operation": "solo", "weights": {"sql": 1}}]
    said = {
        "let go": ask(traces, studio, id="?", serial=1, overrides=solo),
        "let go of": ask(traces, studio, user="bob", id=key, serial=1, overrides=solo),
        "No bank": ask(traces, None, id=key, serial=1, overrides=solo),
        "names no expert of this bank": ask(
            traces, studio, id=key, serial=1,
            overrides=[{"operation": "solo", "weights": {"rust": 1}}],
        ),
        "expected a list": ask(traces, studio, id=key, serial=1, overrides="solo"),
        "other experts": ask(traces, studio, id=foreign, serial=1, overrides=solo),
    }  # fmt: skip
    for sentence, answer in said.items():
        assert sentence in answer["problem"]
        assert "shown" not in answer


@pytest.mark.parametrize("asked", [None, 7, [], {}, {"id": 7}, {"id": None, "serial": "x"}])
def test_nonsense_is_answered_too(asked):
    answer = preview_plan(asked, TraceStore(), FakeStudio(), user="")
    assert answer == {"id": "", "serial": 0, "problem": answer["problem"]}
