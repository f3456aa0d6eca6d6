"""Going on after a text: as if it had never stopped, and what was written stays what it is."""

import threading
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tapes import Tape
from tiny_models import ROUTERS, make_tiny_studio
from tokenizers.processors import TemplateProcessing
from tolerances import ONE_PASS

from lmoe_studio.errors import (
    BankMismatchError,
    ConfigError,
    ContextLengthError,
    LMoEError,
    PlanError,
    TextError,
)
from lmoe_studio.generation.decode import Row, decode_steps
from lmoe_studio.generation.sampling import Sampler, SamplingOptions
from lmoe_studio.routing.plan import Override, RegexMatch, RoutingPlan, Span, Steps, TextMatch
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.tracing.files import load_trace, save_trace

PER_TOKEN = ("router_logits", "router_weights", "routing_weights", "logprobs", "entropies")
EXACT = (*PER_TOKEN, "token_ids", "generated", "overridden", "ranks", "alternative_ids")
SOLO = RoutingPlan([Override.solo("math")])


def endless(**options):
    """A studio whose texts have no end mark, so that they are as long as asked for."""
    studio = make_tiny_studio(**options)
    studio.tokenizer.eos_token = None
    studio.model.base.config.eos_token_id = None
    studio.model.base.generation_config.eos_token_id = None
    return studio


STUDIO = endless()


@pytest.fixture
def studio():
    return endless()


def assert_same(found, expected):
    assert found.token_ids == expected.token_ids
    assert (found.text, found.prompt) == (expected.text, expected.prompt)
    for part in PER_TOKEN:
        mine, theirs = getattr(found.trace, part), getattr(expected.trace, part)
        np.testing.assert_allclose(mine, theirs, **ONE_PASS)
    assert found.trace.plan == expected.trace.plan
    assert found.trace.generated.tolist() == expected.trace.generated.tolist()


def assert_kept(trace, past):
    """To the last bit."""
    for part in EXACT:
        np.testing.assert_array_equal(getattr(trace, part)[: len(past)], getattr(past, part))


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 1.3, "top_k": 7}])
@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_going_on_is_never_having_stopped(router, options):
    studio = endless(router=router)
    plan = RoutingPlan(
        [Override.boost({"sql": 2}, tokens="generated"), Override.ban("math", tokens="prompt")]
    )
    given = {"plan": plan, "seed": 4, **options}
    whole = studio.generate("hello", max_new_tokens=12, **given)
    part = studio.generate("hello", max_new_tokens=5, **given)
    twice = studio.generate(part, max_new_tokens=3, **given)
    thrice = studio.generate(twice, max_new_tokens=4, **given)
    assert_same(thrice, whole)
    assert (thrice.trace.overridden == whole.trace.overridden).all()
    assert_kept(thrice.trace, twice.trace)
    assert thrice.seed == thrice.trace.seed == 4
    assert (thrice.written_before, thrice.new_tokens) == (8, 4)


scopes = st.one_of(
    st.sampled_from(["all", "prompt", "generated"]),
    st.lists(st.integers(0, 12), min_size=1, max_size=3),
    st.builds(Span, start=st.integers(0, 9)),
    st.builds(lambda start: Steps(steps=Span(start=start)), st.integers(0, 9)),
    st.builds(lambda steps: Steps(steps=steps), st.sets(st.integers(0, 9), min_size=1).map(list)),
    st.sampled_from([TextMatch(text="l"), RegexMatch(regex="[a-m]"), RegexMatch(regex="o.$")]),
)
overrides = st.builds(
    lambda name, tokens, strength: Override.solo(name, tokens=tokens, strength=strength),
    st.sampled_from(["sql", "prose", "math"]), scopes, st.sampled_from([0, 0.5, 1]),
)  # fmt: skip
plans = st.none() | st.builds(RoutingPlan, st.lists(overrides, max_size=3))


@settings(max_examples=40, deadline=None)
@given(plans, st.integers(1, 9), st.sampled_from([None, 1.0]), st.booleans())
def test_whatever_the_plan_and_wherever_it_stops(plan, stop, temperature, with_file):
    given = {"plan": plan, "seed": 1, "temperature": temperature}
    whole = STUDIO.generate("hello", max_new_tokens=10, **given)
    part = STUDIO.generate("hello", max_new_tokens=10, should_stop=after(stop), **given)
    assert len(part.token_ids) == stop
    found = STUDIO.generate(part.trace if with_file else part, max_new_tokens=10 - stop, **given)
    assert_same(found, whole)


def after(count):
    """A signal that lets so many tokens be written: it is asked before each pass and each token."""
    asked = iter(range(1, 1000))
    return lambda: next(asked) > count + 1


def test_the_plan_may_change_meanwhile_and_what_was_written_stays(studio):
    plans = iter([None] * 6 + [SOLO] * 6)  # of the prompt and 5 tokens; of the others
    whole = studio.generate("hello", max_new_tokens=11, plan=lambda: next(plans))
    part = studio.generate("hello", max_new_tokens=5)
    found = studio.generate(part, plan=SOLO, max_new_tokens=6)
    assert_same(found, whole)
    assert_kept(found.trace, part.trace)
    assert (found.trace.routing_weights[10:] == np.array([0, 0, 1])).all()


def test_without_a_seed_it_goes_on_with_its_own(studio):
    part = studio.generate("hello", temperature=1.0, max_new_tokens=5)
    whole = studio.generate("hello", temperature=1.0, max_new_tokens=9, seed=part.seed)
    assert_same(studio.generate(part, temperature=1.0, max_new_tokens=4), whole)


def test_pieces_count_on(studio):
    part = studio.generate("hello", max_new_tokens=5)
    pieces = list(studio.stream(part, max_new_tokens=4))
    assert [piece.step for piece in pieces] == [5, 6, 7, 8]
    assert part.text + "".join(piece.new_text for piece in pieces) == pieces[-1].text
    assert_kept(pieces[0].trace(), part.trace)
    assert len(pieces[0].trace()) == len(part.trace) + 1


def test_stopped_before_a_new_token_it_is_what_it_was(studio):
    part = studio.generate("hello", plan=SOLO, max_new_tokens=5)
    found = studio.generate(part, should_stop=lambda: True)
    assert (found.finish, found.text, found.new_tokens) == ("stopped", part.text, 0)
    assert replace(found.trace, run="", plan=None) == replace(part.trace, run="", plan=None)
    assert found.trace.plan == SOLO.to_json()


def test_a_trace_of_a_read_text_is_gone_on_after_like_a_prompt(studio):
    trace = studio.trace("hello")
    found = studio.generate(trace, max_new_tokens=6)
    whole = studio.generate("hello", max_new_tokens=6)
    assert found.token_ids == whole.token_ids
    assert found.prompt == "hello"
    assert found.trace.generated.sum() == 6


def test_the_end_mark_of_a_read_text_is_not_gone_on_after(studio):
    plain = studio.generate("hello", max_new_tokens=4, contributions=True)
    ending = make_tiny_studio()
    ending.tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    read = ending.trace("hello", contributions=True)
    assert read.token_ids[-1] == 2
    found = ending.generate(read, max_new_tokens=4, contributions=True)
    assert_same(found, plain)
    assert_kept(found.trace, read.first(len(read) - 1))


def test_a_file_is_gone_on_after(studio, tmp_path):
    given = {"temperature": 1.0, "plan": SOLO}
    part = studio.generate("hello", max_new_tokens=5, seed=2, **given)
    save_trace(part.trace, tmp_path / "part.safetensors")
    found = studio.generate(load_trace(tmp_path / "part.safetensors"), max_new_tokens=4, **given)
    assert_same(found, studio.generate("hello", max_new_tokens=9, seed=2, **given))


def test_long_pasts_are_read_in_windows(studio, monkeypatch):
    part = studio.generate("abcd" * 10, max_new_tokens=9)
    whole = studio.generate("abcd" * 10, max_new_tokens=15)
    monkeypatch.setattr("lmoe_studio.generation.shared_prompts.PASS", 7)
    assert_same(studio.generate(part, max_new_tokens=6), whole)


def test_several_plans_go_on_after_one_text(studio):
    part = studio.generate("hello", max_new_tokens=4)
    plans = {
        "solo": SOLO,
        "router": None,
        "later": RoutingPlan([Override.bypass(tokens=Span(start=11))]),
    }
    runs = studio.compare(part, plans, max_new_tokens=6).runs
    assert list(runs) == ["base", *plans]
    for name, plan in plans.items():
        assert_same(runs[name], studio.generate(part, plan=plan, max_new_tokens=6))
    with pytest.raises(TextError, match="reference"):
        studio.compare(part, plans, reference="o")


def test_contributions_and_alternatives_go_on(studio):
    options = {"contributions": True, "alternatives": 3}
    part = studio.generate("hello", max_new_tokens=4, **options)
    whole = studio.generate("hello", max_new_tokens=8, **options)
    found = studio.generate(part, max_new_tokens=4, **options)
    np.testing.assert_allclose(found.trace.contributions, whole.trace.contributions, **ONE_PASS)
    np.testing.assert_array_equal(found.trace.alternative_ids, whole.trace.alternative_ids)
    more = studio.generate(part, max_new_tokens=4, alternatives=5).trace
    assert more.contributions is None
    assert (more.alternative_ids[:9, 3:] == -1).all()
    np.testing.assert_array_equal(more.alternative_ids[:9, :3], part.trace.alternative_ids)
    assert (more.alternative_ids[9:] >= 0).all()


def test_a_stop_string_that_ended_it_is_passed(studio):
    text = studio.generate("hello", max_new_tokens=20).text
    stop = text[6:8]
    part = studio.generate("hello", max_new_tokens=20, stop=stop)
    assert part.finish == "stop string"
    found = studio.generate(part, max_new_tokens=20 - len(part.token_ids), stop=stop)
    assert found.text == (text if text.count(stop) == 1 else text[: text.index(stop, 8)])


def test_replayed_steps_count_on():
    plan = RoutingPlan(
        [Override.solo("sql", tokens=Steps(steps=[6, 7])), Override.ban("math", tokens=[12])]
    )
    part = STUDIO.generate("hello", plan=plan, max_new_tokens=13, should_stop=after(5))
    ids = part.trace.token_ids.tolist()

    def write(replayable):
        rows = [Row(ids[:5], Sampler(SamplingOptions(), 0), ids[5:]) for _ in range(2)]
        for _ in decode_steps(
            STUDIO.model, rows, max_new_tokens=8, end_ids=frozenset(), plan_of=lambda *_: plan,
            should_stop=lambda: False, turn=nullcontext(), recording=None,
            past=part.trace.routing_weights, replayable=replayable,
        ):  # fmt: skip
            pass
        return [tuple(row.written) for row in rows]

    Tape.captures = Tape.replays = 0
    whole = STUDIO.generate("hello", plan=plan, max_new_tokens=13).token_ids
    assert write(None) == write(Tape) == [whole, whole]
    assert Tape.replays > 0


def test_a_folded_blend_goes_on_after_its_own_text_only(studio):
    other = studio.generate("hello", max_new_tokens=4)
    with studio.fold(SOLO):
        part = studio.generate("hello", max_new_tokens=4)
        whole = studio.generate("hello", max_new_tokens=9)
        assert_same(studio.generate(part, max_new_tokens=5), whole)
        with pytest.raises(PlanError, match="unfold it first"):
            studio.generate(other)


# What cannot be gone on after


def damaged(studio, **changes):
    return replace(studio.generate("hello", max_new_tokens=3).trace, **changes)


def with_token(studio, token):
    trace = studio.generate("hello", max_new_tokens=3).trace
    return replace(trace, token_ids=np.append(trace.token_ids[:-1], token).astype(np.int32))


REFUSED = {
    "another bank": (lambda s: damaged(s, bank="other"), BankMismatchError, "another bank"),
    "another router": (
        lambda _: make_tiny_studio(router=RouterSettings(top_k=1)).trace("hello"),
        BankMismatchError,
        "another router",
    ),
    "fewer experts": (
        lambda _: make_tiny_studio(ranks=(4, 4)).trace("hello"), BankMismatchError, "other experts",
    ),
    "no trace": (
        lambda s: s.generate("hello", max_new_tokens=2, trace=False), TextError, "has no trace",
    ),
    "stopped at once": (
        lambda s: s.generate("hello", should_stop=lambda: True), TextError, "has no trace",
    ),
    "foreign token": (lambda s: with_token(s, 259), TextError, "holds token 259"),
    "too long": (lambda s: s.generate("a" * 60, max_new_tokens=5), ContextLengthError, "65"),
    "a list": (lambda _: [1, 2], TextError, "The prompt is a list"),
    "nothing": (lambda _: None, TextError, "The prompt is"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_gone_on_after_is_refused_at_once(studio, kind):
    make, error, sentence = REFUSED[kind]
    given = make(studio)
    with pytest.raises(error, match=sentence) as refused:
        studio.stream(given, max_new_tokens=64)
    assert issubclass(error, LMoEError)
    assert str(refused.value).endswith(".")


def test_a_text_that_has_ended_is_refused():
    studio = make_tiny_studio()
    with pytest.raises(TextError, match="has ended"):
        studio.generate(with_token(studio, 2))
    assert studio.generate(replace(with_token(studio, 2), generated=np.zeros(8, bool))).text


def test_an_empty_trace_is_refused(studio):
    trace = studio.trace("hello")
    cells = {
        name: getattr(trace, name)[:0]
        for name in trace.__dataclass_fields__
        if isinstance(getattr(trace, name), np.ndarray | tuple) and len(getattr(trace, name)) == 5
    }
    with pytest.raises(TextError, match="is empty"):
        studio.generate(replace(trace, **cells))


def test_contributions_cannot_be_had_afterwards(studio):
    with pytest.raises(ConfigError, match="written without them"):
        studio.generate(studio.trace("hello"), contributions=True)


def test_a_text_that_was_stopped_by_an_event_goes_on(studio):
    event = threading.Event()
    part = None
    for piece in studio.stream("hello", max_new_tokens=20, should_stop=event):
        part = piece.generation
        if piece.step == 6:
            event.set()
    assert part.finish == "stopped"
    whole = studio.generate("hello", max_new_tokens=20)
    assert_same(studio.generate(part, max_new_tokens=20 - len(part.token_ids)), whole)
