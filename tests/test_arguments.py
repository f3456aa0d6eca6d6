"""Whatever comes in at the Studio's verbs: the same as its plain form, or one sentence."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import make_tiny_studio

from lmoe_studio.errors import ConfigError, LMoEError, PlanError, TextError
from lmoe_studio.generation.options import GenerationOptions
from lmoe_studio.routing.plan import Override, RoutingPlan, Steps
from lmoe_studio.routing.settings import RouterSettings

SQL = Override.solo("sql")
PLAN = RoutingPlan([SQL])
WRITE = {"max_new_tokens": 3, "seed": 0}


@pytest.fixture(scope="module")
def studio():
    return make_tiny_studio()


def folded(studio, plan):
    with studio.fold(plan):
        return studio.trace("hello").routing_weights


VERBS = {
    "trace": lambda studio, plan: studio.trace("hello", plan=plan).routing_weights,
    "generate": lambda studio, plan: studio.generate("hello", plan=plan, **WRITE).token_ids,
    "asked each step": lambda studio, plan: (
        studio.generate("hello", plan=lambda: plan, **WRITE).token_ids
    ),
    "stream": lambda studio, plan: [
        piece.token_id for piece in studio.stream("hello", plan=plan, **WRITE)
    ],
    "compare": lambda studio, plan: (
        studio.compare("hello", {"it": plan}, **WRITE).runs["it"].token_ids
    ),
    "sweep": lambda studio, plan: [
        run.token_ids
        for run in studio.sweep("hello", "math", plan=plan, strengths=[0.5], **WRITE).runs.values()
    ],
    "evaluate": lambda studio, plan: (
        studio.evaluate(["hello you"], plans={"it": plan}).table().loc["it"].tolist()
    ),
    "composition_gap": lambda studio, plan: studio.composition_gap("hello", plan=plan)["output"],
    "preview": lambda studio, plan: studio.preview(studio.trace("hello"), plan),
    "check_plan": lambda studio, plan: studio.check_plan(plan),
    "fold": folded,
    "model": lambda studio, plan: studio.model(torch.tensor([[5, 6]]), plan=plan).logits.tolist(),
}
GIVEN = [SQL, [SQL], {"overrides": [{"operation": "solo", "weights": {"sql": 1}}]}]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_a_plan_in_every_shape(studio, verb):
    expected = VERBS[verb](studio, PLAN)
    for given in GIVEN[:1] + GIVEN[2:] if verb == "model" else GIVEN:  # there a list is by row
        np.testing.assert_array_equal(VERBS[verb](studio, given), expected)
    if verb != "model":  # whose types the tests check before it does
        with pytest.raises(PlanError, match=r"expected a RoutingPlan, an Override"):
            VERBS[verb](studio, 5)
    assert studio.model.folded is None


def test_corpora_and_merges_take_them_too(studio, tmp_path):
    for number, given in enumerate(GIVEN):
        run = studio.trace_corpus(["hello"], out=tmp_path / str(number), plan=given)
        assert set(run.frame().query("expert == 'sql'")["weight"]) == {1}
        merged = studio.merge(given, tmp_path / f"merged-{number}")
        assert merged.max_difference < 1e-3
    for wrong in (5, None, {"sql": "x"}, {"sql": True}):
        with pytest.raises(LMoEError, match="is "):
            studio.merge(wrong, tmp_path / "none")


@pytest.mark.parametrize("count", [0, -1, 2.5, True, "3", [3]], ids=repr)
def test_a_number_of_tokens_is_one_from_1_up(studio, tmp_path, count):
    for run in (
        lambda: studio.trace("hello", max_tokens=count),
        lambda: studio.trace_corpus(["hello"], out=tmp_path / "run", max_tokens=count),
        lambda: studio.evaluate(["hello"], max_tokens=count),
    ):
        with pytest.raises(ConfigError, match=r"^max_tokens is .*whole number from 1 up"):
            run()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [-1, 260, 10**9, None, 1.5], ids=repr)
def test_alternatives_are_as_many_as_the_vocabulary_has_at_most(studio, count):
    with pytest.raises(ConfigError, match=r"^alternatives is .*from 0 to 259"):
        studio.trace("hello", alternatives=count)
    with pytest.raises(ConfigError, match="alternatives"):
        studio.generate("hello", alternatives=200 if count == 260 else count, **WRITE)


def test_alternatives_up_to_the_vocabulary(studio):
    for count in (0, 1, 259, np.int64(7)):
        assert studio.trace("hello", alternatives=count).alternative_ids.shape == (5, count)
    assert len(studio.trace("hello", max_tokens=np.int64(2))) == 2


def test_a_small_vocabulary_bounds_the_alternatives_of_a_text_too(studio, monkeypatch):
    monkeypatch.setattr(studio.model.base.config, "vocab_size", 50)
    with pytest.raises(
        ConfigError, match="alternatives is 60; expected a whole number from 0 to 50"
    ):
        studio.generate("hello", alternatives=60, **WRITE)


@pytest.mark.parametrize("text", [None, 5, ["hello"], b"hello", pd.Series(["hello"])], ids=type)
def test_what_is_no_text_is_named(studio, text):
    for run in (
        lambda: studio.trace(text),
        lambda: studio.composition_gap(text),
        lambda: studio.generate(text, **WRITE),
        lambda: studio.stream(text, **WRITE),
        lambda: studio.compare(text, {"it": SQL}, **WRITE),
    ):
        with pytest.raises(TextError, match=r"^The (text|prompt) is .*; expected text"):
            run()


def test_other_wrong_kinds_are_named(studio):
    for run, message in (
        (lambda: studio.generate("hi", should_stop=5), "should_stop is an int"),
        (lambda: studio.sweep("hi", "sql", strengths=0.5), "strengths is a float"),
        (lambda: studio.sweep("hi", ["sql"]), "An expert's name is a list"),
        (lambda: studio.compare("hi", [SQL]), "plans are a list; expected them by name"),
        (lambda: studio.evaluate(["hi"], plans=[SQL]), "plans are a list; expected them by name"),
        (lambda: studio.compare("hi", {"it": SQL}, reference=5, **WRITE), "reference is an int"),
    ):
        with pytest.raises(LMoEError, match=message):
            run()


def test_a_plan_for_what_is_written_is_said_to_do_nothing_in_a_trace(studio):
    for scope in ("generated", Steps([1])):
        plan = [SQL, Override.ban("math", tokens=scope)]
        [note] = studio.check_plan(plan)
        assert note.startswith("Override 2 (ban) holds for generated tokens only")
        assert not studio.check_plan(plan, max_new_tokens=8)
    assert not studio.check_plan(SQL)


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (GenerationOptions, {"max_new_tokens": True}),
        (GenerationOptions, {"seed": False}),
        (GenerationOptions, {"temperature": True}),
        (RouterSettings, {"top_k": True}),
        (RouterSettings, {"kind": "blend", "blend": {"sql": True}}),
    ],
)
def test_true_is_no_number(options, values):
    with pytest.raises(ConfigError, match="expected a number, not true or false"):
        options.parse(values, source="here")


@pytest.mark.parametrize("name", ["max_new_tokens", "seed", "top_k", "alternatives", "stop"])
def test_a_number_of_thousands_of_digits_is_refused_in_a_sentence(studio, name):
    with pytest.raises(ConfigError, match=name):
        studio.generate("hello", **{name: 10**5000})
    with pytest.raises(ConfigError, match="max_tokens"):
        studio.trace("hello", max_tokens=-(10**5000))


@pytest.mark.parametrize(
    "options",
    [{"max_new_tokens": "5"}, {"seed": "0"}, {"temperature": "0.5"}, {"top_k": "3", "temperature": 1},
     {"alternatives": "2"}, {"repetition_penalty": "1"}, {"max_new_tokens": "many"}],
)  # fmt: skip
def test_a_number_that_is_text_is_one_sentence(studio, options):
    name = next(iter(options))
    with pytest.raises(ConfigError, match=f"Generation: {name}: expected a number, not text"):
        studio.generate("hello", **options)
    assert studio.generate("hello", stop="x", **WRITE).token_ids


def test_a_plan_that_begins_with_a_byte_order_mark_is_read():
    assert RoutingPlan.from_json("\ufeff" + PLAN.to_json()) == PLAN
