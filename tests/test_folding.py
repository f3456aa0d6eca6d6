"""A blend in the weights says what the live blend says, and leaves no mark."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_models import ROUTERS, make_tiny_base, make_tiny_studio
from tolerances import ONE_PASS

from lmoe_studio.errors import PlanError
from lmoe_studio.experts.layer import LoRABankLinear
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.settings import RouterSettings

BLEND = RoutingPlan([Override.blend({"sql": 0.6, "math": 0.4})])
BY_LAYER = RoutingPlan(
    [
        Override.uniform(),
        Override.pin({"sql": 1.5, "prose": -0.5}, layers=[1], renormalise=False),
        Override.bypass(layers=[2]),
    ]
)


def base_weights(studio):
    return {
        name: (tensor.data_ptr(), tensor.clone())
        for name, tensor in studio.model.base_state().items()
    }


@pytest.fixture(scope="module")
def studio():
    return make_tiny_studio(missing=[(1, "k_proj")])


@pytest.mark.parametrize("plan", [BLEND, BY_LAYER], ids=["blend", "by layer"])
@pytest.mark.parametrize("composition", ["output", "factor"])
@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_a_folded_trace_equals_that_of_the_live_plan(router, composition, plan):
    studio = make_tiny_studio(router=router, composition=composition)
    live = studio.trace("SELECT a", plan=plan)
    with studio.fold(plan):
        found = studio.trace("SELECT a")
    assert found.plan == live.plan
    for name in ("routing_weights", "router_weights", "router_logits", "router_probs", "logprobs"):
        np.testing.assert_allclose(getattr(found, name), getattr(live, name), **ONE_PASS)
    np.testing.assert_array_equal(found.overridden, live.overridden)


@pytest.mark.parametrize("trace", [True, False])
def test_a_text_written_folded_equals_one_written_under_the_plan(studio, trace):
    live = studio.generate("SELECT a", plan=BY_LAYER, max_new_tokens=16, trace=trace)
    with studio.fold(BY_LAYER):
        found = studio.generate("SELECT a", max_new_tokens=16, trace=trace)
        pieces = list(studio.stream("SELECT a", max_new_tokens=16, trace=trace))
    assert found.token_ids == live.token_ids
    assert pieces[-1].text == live.text
    if trace:
        assert found.trace.plan == BY_LAYER.to_json()
        np.testing.assert_allclose(
            found.trace.routing_weights, live.trace.routing_weights, **ONE_PASS
        )


def test_unfolding_leaves_every_bit_as_it_was_also_after_an_exception(studio):
    before, trace = base_weights(studio), studio.trace("hello")
    with studio.fold(BLEND):
        studio.generate("hello", max_new_tokens=3)
    with pytest.raises(ZeroDivisionError), studio.fold(BY_LAYER):
        raise ZeroDivisionError
    after = base_weights(studio)
    assert before.keys() == after.keys()
    for name, (place, tensor) in before.items():
        assert after[name][0] == place
        assert torch.equal(after[name][1], tensor)
    again = studio.trace("hello")
    np.testing.assert_array_equal(again.logprobs, trace.logprobs)
    assert again.plan is None


def test_a_folded_model_runs_the_base_models_own_modules(studio):
    with studio.fold(BLEND):
        modules = list(studio.model.base.modules())
        assert not any(isinstance(module, LoRABankLinear) for module in modules)
        assert len(modules) == len(list(make_tiny_base().modules()))
        calls = []
        mix = studio.model._mix
        studio.model._mix = lambda *args: calls.append(args) or mix(*args)
        studio.generate("hello", max_new_tokens=3, trace=False)
        assert calls == []
        studio.trace("hello")
        assert len(calls) == 3
        del studio.model._mix


def test_folding_a_bypass_is_the_base_model(studio):
    ids = torch.tensor([studio.tokenizer("hello").input_ids])
    with torch.no_grad(), studio.fold(RoutingPlan([Override.bypass()])):
        assert torch.equal(studio.model(ids).logits, make_tiny_base()(ids).logits)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (RoutingPlan(), "In layer 0 the plan leaves weights to the router.* same for all tokens"),
        (RoutingPlan([Override.ban("sql")]), "leaves weights to the router"),
        (RoutingPlan([Override.solo("sql", tokens="generated")]), "holds for some tokens only"),
        (RoutingPlan([Override.solo("sql", strength=0.5)]), "leaves weights to the router"),
        (RoutingPlan([Override.solo("sqll")]), "did you mean 'sql'"),
    ],
)
def test_a_plan_that_depends_on_the_token_is_refused(studio, plan, message):
    with pytest.raises(PlanError, match=message), studio.fold(plan):
        pass
    assert studio.model.folded is None


def test_while_folded_nothing_pretends_to_steer(studio, tmp_path):
    other = RoutingPlan([Override.solo("math")])
    with studio.fold(BLEND):
        for call in (
            lambda: studio.trace("hello", plan=other),
            lambda: studio.generate("hello", plan=other),
            lambda: studio.stream("hello", plan=lambda: other),
            lambda: studio.compare("hello", {"one": other}),
            lambda: studio.sweep("hello", "sql"),
            lambda: studio.trace("hello", contributions=True),
            lambda: studio.generate("hello", contributions=True),
            lambda: studio.merge(BLEND, tmp_path / "out"),
            lambda: studio.composition_gap("hello"),
            lambda: studio.trace_corpus(["hello"], out=tmp_path),
            lambda: studio.evaluate(["hello"]),
            lambda: studio.fold(other).__enter__(),
        ):
            with pytest.raises(PlanError, match="folded into the"):
                call()
        assert studio.trace("hello", plan=RoutingPlan()).plan == BLEND.to_json()
    assert studio.trace("hello", plan=other).plan == other.to_json()


def test_folding_waits_for_no_text_and_spoils_none(studio):
    stream = studio.stream("hello", max_new_tokens=8)
    next(stream)
    with pytest.raises(PlanError, match="A text is being written"), studio.fold(BLEND):
        pass
    assert len(list(stream)) == 7
    unread = studio.stream("hello", max_new_tokens=8)
    with studio.fold(BLEND):
        with pytest.raises(PlanError, match=r"folded into .* or unfolded"):
            next(unread)
        begun = studio.stream("hello", max_new_tokens=8)
        next(begun)
    with pytest.raises(PlanError, match="or unfolded, while this text"):
        next(begun)
    with studio.fold(BLEND):  # what failed is over
        pass


def test_many_threads_see_either_the_router_or_the_blend(studio):
    """Whoever folds, no trace mixes the two."""
    router, blend = studio.trace("hello"), None
    with studio.fold(BLEND):
        blend = studio.trace("hello")
    wrong = []
    done = threading.Event()

    def read():
        while not done.is_set():
            found = studio.trace("hello")
            expected = router if found.plan is None else blend
            if not np.array_equal(found.logprobs, expected.logprobs, equal_nan=True):
                wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(15):
        with studio.fold(BLEND, everywhere=True):
            pass
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_module_routers_are_heard_while_folded_only_in_their_own_call():
    studio = make_tiny_studio(router=RouterSettings(scope="module"))
    with studio.fold(BLEND):
        studio.trace("hello")
        hooks = [m for m in studio.model.base.modules() if m._forward_pre_hooks]
        heard = [type(m).__name__ for m in hooks if m is not studio.model.base]
        assert heard == ["LlamaDecoderLayer"] * 3


def test_a_fold_is_of_the_thread_that_asked_for_it():
    studio = make_tiny_studio()
    plan = RoutingPlan([Override.solo("sql")])
    own = studio.trace("hello").routing_weights
    with ThreadPoolExecutor(1) as elsewhere:
        with studio.fold(plan):
            for call in (
                lambda: studio.trace("hello"),
                lambda: studio.generate("hello", max_new_tokens=2),
                lambda: studio.stream("hello", max_new_tokens=2),
            ):
                with pytest.raises(PlanError, match="Another thread has folded a blend"):
                    elsewhere.submit(call).result()
                call()
            pieces = studio.stream("hello", max_new_tokens=2)  # read elsewhere, asked for here
            assert elsewhere.submit(list, pieces).result()[-1].finish == "length"
        with studio.fold(plan, everywhere=True):
            blend = elsewhere.submit(studio.trace, "hello").result()
            assert (blend.routing_weights[..., 0] == 1).all()
            assert blend.plan == plan.to_json()
        assert (elsewhere.submit(studio.trace, "hello").result().routing_weights == own).all()
