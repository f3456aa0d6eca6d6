"""Writing texts: equal to transformers, to itself in any arrangement, and honest about why it ended."""

import threading

import numpy as np
import pytest
import torch
from tiny_models import ROUTERS, make_tiny_base, make_tiny_studio
from tokenizers.normalizers import Replace
from tokenizers.processors import TemplateProcessing
from tolerances import ONE_PASS
from transformers import set_seed

from lmoe_studio.errors import ConfigError, ContextLengthError, PlanError, TextError
from lmoe_studio.generation.options import GenerationOptions
from lmoe_studio.generation.stop_strings import StopStrings
from lmoe_studio.routing.plan import Override, RoutingPlan, Span, Steps, TextMatch
from lmoe_studio.routing.settings import RouterSettings

PROMPTS = [
    f"{a} {b}" for a in ("SELECT", "def f", "Ça", "12+") for b in ("a", "bc", "日", "x y", "")
]
EIGHT = [
    RoutingPlan([Override.solo("sql")]),
    RoutingPlan([Override.solo("math", tokens="generated", layers=Span(start=1))]),
    RoutingPlan([Override.ban("prose"), Override.top_k(1)]),
    RoutingPlan([Override.bias({"sql": 3}), Override.temperature(0.5)]),
    RoutingPlan([Override.pin({"sql": 1, "math": -1}, renormalise=False, strength=0.5)]),
    RoutingPlan([Override.bypass(tokens=Steps(steps=Span(start=2)))]),
    RoutingPlan([Override.solo("prose", tokens={"regex": "[aeiou ]"})]),
    None,
]


@pytest.fixture(scope="module")
def studio():
    return make_tiny_studio()


def ids_of(studio, prompt, **options):
    return studio.generate(prompt, max_new_tokens=16, trace=False, **options).token_ids


# Equal to transformers


@pytest.mark.parametrize("trace", [True, False])
def test_greedy_equals_model_generate_on_20_prompts(trace):
    studio = make_tiny_studio()
    bypass = RoutingPlan([Override.bypass()])
    base = make_tiny_base()
    for prompt in PROMPTS:
        ids = studio.tokenizer(prompt, return_tensors="pt").input_ids
        own = studio.generate(prompt, plan=bypass, max_new_tokens=16, trace=trace)
        theirs = base.generate(ids, max_new_tokens=16, do_sample=False)[0, ids.shape[1] :]
        assert list(own.token_ids) == theirs.tolist()


@pytest.mark.parametrize(
    "options",
    [{"temperature": 1.0}, {"temperature": 0.7, "top_k": 9}, {"temperature": 1.3, "top_p": 0.8},
     {"temperature": 1.0, "min_p": 0.05}, {"temperature": 1.1, "top_k": 50, "top_p": 0.9,
     "repetition_penalty": 1.3}, {"repetition_penalty": 1.5}],
    ids=str,
)  # fmt: skip
def test_sampling_equals_model_generate(studio, options):
    """The same seed draws the same tokens as transformers with one row."""
    bypass = RoutingPlan([Override.bypass()])
    base = make_tiny_base()
    ids = studio.tokenizer("SELECT a", return_tensors="pt").input_ids
    own = studio.generate("SELECT a", plan=bypass, max_new_tokens=16, seed=11, **options)
    set_seed(11)
    settings = {"top_k": 0, **options}
    theirs = base.generate(
        ids, max_new_tokens=16, do_sample="temperature" in options,
        **(settings if "temperature" in options else options),
    )  # fmt: skip
    assert list(own.token_ids) == theirs[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_cached_equals_uncached(router):
    """Every token is the likeliest after a fresh pass over all before it, with equal weights."""
    studio = make_tiny_studio(router=router)
    plan = RoutingPlan(
        [Override.boost({"sql": 2}, tokens="generated"), Override.solo("math", tokens=[3])]
    )
    made = studio.generate("hello", plan=plan, max_new_tokens=12)
    ids = torch.tensor([made.trace.token_ids.tolist()])
    steps = (torch.arange(ids.shape[1]) - 5).clamp_min(-1)[None]
    with torch.no_grad():
        out = studio.model(ids, plan=plan, steps=steps, record=True)
    assert out.logits[0, 4:-1].argmax(-1).tolist() == list(made.token_ids)
    np.testing.assert_allclose(made.trace.routing_weights, out.routing.weights[0], **ONE_PASS)


# The trace


def test_the_trace_holds_every_token_once_with_its_scores(studio):
    plan = RoutingPlan([Override.solo("sql", tokens="generated", layers=[1])])
    made = studio.generate("SELECT é", plan=plan, max_new_tokens=9, temperature=1.0, seed=3,
                           contributions=True, alternatives=3)  # fmt: skip
    trace = made.trace
    prompt = studio.tokenizer("SELECT é").input_ids
    assert trace.token_ids.tolist() == prompt + list(made.token_ids)
    assert trace.generated.tolist() == [False] * len(prompt) + [True] * 9
    assert (trace.seed, trace.plan) == (3, plan.to_json())
    assert (trace.routing_weights[trace.generated, 1] == np.array([1, 0, 0])).all()
    assert trace.overridden[trace.generated, 1].all()
    assert not trace.overridden[~trace.generated].any()
    assert trace.contributions.shape == trace.routing_weights.shape
    weights = torch.from_numpy(trace.routing_weights)[None]
    with torch.no_grad():  # the unprocessed distribution, whatever the sampling
        log_p = studio.model(torch.tensor([trace.token_ids.tolist()]), routing_weights=weights)
    log_p = log_p.logits[0].log_softmax(-1)[:-1]
    own = log_p.gather(-1, torch.from_numpy(trace.token_ids[1:]).long()[:, None])[:, 0]
    np.testing.assert_allclose(trace.logprobs[1:], own, **ONE_PASS)
    assert np.isnan(trace.logprobs[0])
    np.testing.assert_array_equal(trace.alternative_ids[1:], log_p.topk(3).indices)


def test_recording_changes_nothing(studio):
    plain = studio.generate("hello", max_new_tokens=16, trace=False)
    assert plain.trace is None
    assert studio.generate("hello", max_new_tokens=16).token_ids == plain.token_ids


def test_replaying_a_generations_weights_gives_its_tokens(studio):
    plan = RoutingPlan([Override.bias({"math": 2}, tokens="generated")])
    trace = studio.generate("hello", plan=plan, max_new_tokens=12).trace
    ids = torch.tensor([trace.token_ids.tolist()])
    weights = torch.from_numpy(trace.routing_weights)[None]
    with torch.no_grad():
        logits = studio.model(ids, routing_weights=weights).logits[0]
    assert logits[4:-1].argmax(-1).tolist() == trace.token_ids[5:].tolist()


def test_long_prompts_are_read_in_pieces_with_the_same_result(studio, monkeypatch):
    plan = RoutingPlan(
        [Override.solo("sql", tokens=TextMatch(text="cd")), Override.ban("math", tokens=[1, 30])]
    )
    whole = studio.generate("abcd" * 10, plan=plan, max_new_tokens=8)
    monkeypatch.setattr("lmoe_studio.generation.shared_prompts.PASS", 7)
    pieces = studio.generate("abcd" * 10, plan=plan, max_new_tokens=8)
    assert pieces.token_ids == whole.token_ids
    np.testing.assert_allclose(
        pieces.trace.routing_weights, whole.trace.routing_weights, **ONE_PASS
    )
    np.testing.assert_allclose(pieces.trace.logprobs, whole.trace.logprobs, **ONE_PASS)


# Batches


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_a_batch_with_8_plans_equals_8_solo_runs(studio, temperature):
    plans = {str(n): plan for n, plan in enumerate(EIGHT)}
    options = {"max_new_tokens": 16, "temperature": temperature, "seed": 5}
    together = studio.compare("SELECT a", plans, base=False, **options).runs
    assert len({run.token_ids for run in together.values()}) > 4
    for name, plan in plans.items():
        alone = studio.generate("SELECT a", plan=plan, **options)
        assert together[name].token_ids == alone.token_ids
        assert together[name].text == alone.text
        for field in ("routing_weights", "logprobs"):
            np.testing.assert_allclose(
                getattr(together[name].trace, field), getattr(alone.trace, field), **ONE_PASS
            )
        assert (together[name].trace.overridden == alone.trace.overridden).all()


def test_the_base_row_is_the_base_model_and_comes_first(studio):
    result = studio.compare("hello", {"A": EIGHT[0], "B": EIGHT[1]}, max_new_tokens=8)
    assert list(result.runs) == ["base", "A", "B"]
    ids = studio.tokenizer("hello", return_tensors="pt").input_ids
    expected = make_tiny_base().generate(ids, max_new_tokens=8, do_sample=False)[0, 5:]
    assert list(result.runs["base"].token_ids) == expected.tolist()
    a, b = result.runs["A"].token_ids, result.runs["B"].token_ids
    step = result.divergence("A", "B")
    assert a[:step] == b[:step]
    assert a[step] != b[step]
    assert result.divergence("A", "A") is None


def test_different_plans_with_the_same_output_are_pointed_out(studio):
    plans = {"A": EIGHT[0], "B": RoutingPlan([Override.pin({"sql": 2})]), "C": EIGHT[0]}
    result = studio.compare("hello", plans, max_new_tokens=8, base=False)
    assert set(result.identical) == {("A", "B"), ("B", "C")}  # A and C are the same plan


def test_reference_logprobs_are_those_of_a_trace(studio):
    plan = RoutingPlan([Override.solo("sql", tokens={"text": "wor"})])
    result = studio.compare("hello", {"A": plan, "B": None}, reference=" world", max_new_tokens=2)
    assert set(result.reference_logprobs) == {"base", "A", "B"}
    expected = studio.trace("hello world").logprobs[5:].sum()
    assert result.reference_logprobs["B"] == pytest.approx(expected, abs=1e-4)
    assert result.reference_logprobs["A"] != pytest.approx(expected, abs=1e-4)


def test_a_sweep_runs_from_the_router_to_the_expert_alone(studio):
    result = studio.sweep("hello", "sql", strengths=(0, 0.5, 1), max_new_tokens=8)
    assert list(result.runs) == ["base", "sql 0", "sql 0.5", "sql 1"]
    assert result.runs["sql 0"].token_ids == ids_of(studio, "hello")[:8]
    assert result.runs["sql 1"].token_ids == ids_of(studio, "hello", plan=EIGHT[0])[:8]


def test_rows_that_end_early_leave_the_others_alone():
    studio = make_tiny_studio()
    plans = {str(n): plan for n, plan in enumerate(EIGHT)}
    first = studio.compare("hello", plans, base=False, max_new_tokens=16).runs
    stop = first["0"].token_ids[3]
    studio.model.base.generation_config.eos_token_id = [stop]
    again = studio.compare("hello", plans, base=False, max_new_tokens=16).runs
    assert again["0"].finish == "end"
    for name, run in first.items():
        ids = list(run.token_ids)
        expected = ids[: ids.index(stop) + 1] if stop in ids else ids
        assert list(again[name].token_ids) == expected
        assert len(again[name].trace) == 5 + len(expected)


# Plans while writing


def test_empty_plan_and_strength_zero_write_the_same_bits(studio):
    plain = studio.generate("hello", max_new_tokens=8).trace
    for plan in (
        RoutingPlan(),
        RoutingPlan([Override.solo("sql", strength=0, tokens={"text": "l"})]),
    ):
        trace = studio.generate("hello", plan=plan, max_new_tokens=8).trace
        for field in ("routing_weights", "router_logits", "logprobs", "token_ids"):
            np.testing.assert_array_equal(getattr(trace, field), getattr(plain, field))
        assert trace.plan is None


def test_text_scopes_work_while_generating(studio):
    """In the prompt every token a match overlaps; afterwards those that complete one."""
    plain = studio.generate("ab日ab", max_new_tokens=24).trace
    letter = next(text for text in plain.tokens[9:] if text.isascii() and len(text) == 1)
    plan = RoutingPlan([Override.solo("sql", tokens=TextMatch(text="b日"), layers=[2]),
                        Override.solo("math", tokens=TextMatch(text=letter), layers=[2])])  # fmt: skip
    trace = studio.generate("ab日ab", plan=plan, max_new_tokens=24).trace
    held = np.flatnonzero((trace.routing_weights[:, 2, 0] == 1) & (np.arange(len(trace)) < 7))
    assert held.tolist() == [1, 2, 3, 4]
    new = range(7, len(trace))
    solo = [n for n in new if trace.overridden[n, 2].any()]
    assert solo == [n for n in new if letter in trace.tokens[n]]
    assert solo


def test_a_match_counts_from_the_token_that_completes_it(studio):
    probe = studio.generate("x", max_new_tokens=12)
    letters = [n for n in range(2, 12) if "�" not in "".join(probe.trace.tokens[n - 1 : n + 1])]
    pair = "".join(probe.trace.tokens[letters[0] - 1 : letters[0] + 1])
    plan = RoutingPlan([Override.boost({"sql": 1.0001}, tokens=TextMatch(text=pair), layers=[2])])
    trace = studio.generate("x", plan=plan, max_new_tokens=12).trace
    assert np.flatnonzero(trace.overridden[:, 2].any(-1)).tolist()[0] == letters[0]


def test_a_plan_may_change_between_steps(studio):
    plans = iter([None, None, None, EIGHT[0], EIGHT[0], EIGHT[0], EIGHT[0]])
    trace = studio.generate("hello", plan=lambda: next(plans), max_new_tokens=6).trace
    solo = (trace.routing_weights[5:] == np.array([1, 0, 0])).all(axis=(1, 2))
    assert solo.tolist() == [False, False, True, True, True, True]
    assert trace.plan == EIGHT[0].to_json()


# Pieces


def test_pieces_add_up_to_the_text_and_end_once(studio):
    for seed in range(8):
        options = {"max_new_tokens": 40, "temperature": 1.5, "seed": seed}
        pieces = list(studio.stream("日本", **options))
        made = studio.generate("日本", **options)
        assert "".join(piece.new_text for piece in pieces) == made.text == pieces[-1].text
        whole = studio.tokenizer.decode(list(made.token_ids), skip_special_tokens=True)
        assert made.text == whole
        assert [piece.token_id for piece in pieces] == list(made.token_ids)
        assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1].generation.text == made.text
        for piece, weights in zip(pieces, made.trace.routing_weights[6:], strict=True):
            np.testing.assert_array_equal(piece.weights, weights)


def test_an_incomplete_character_is_held_back():
    from lmoe_studio.tracing.token_texts import TokenStream, TokenTexts

    tokenizer = make_tiny_studio().tokenizer
    stream = TokenStream(TokenTexts(tokenizer))
    assert [stream.add(t) for t in tokenizer("a🎉é").input_ids] == ["a", "", "", "", "🎉", "", "é"]
    stream.add(tokenizer("🎉").input_ids[0])
    assert stream.held == "�"


def test_a_piece_gives_the_trace_so_far(studio):
    pieces = list(studio.stream("hello", max_new_tokens=6))
    part, whole = pieces[2].trace(), pieces[-1].generation.trace
    assert len(part) == 5 + 3
    np.testing.assert_array_equal(part.routing_weights, whole.routing_weights[:8])
    np.testing.assert_array_equal(part.logprobs, whole.logprobs[:8])


# Endings


def test_stop_strings_end_the_text_and_are_never_shown(studio):
    text = studio.generate("hello", max_new_tokens=30).text
    stop = text[8:11]
    shown = ""
    for piece in studio.stream("hello", max_new_tokens=30, stop=stop):
        shown += piece.new_text
        last = piece
    assert last.finish == "stop string"
    assert shown == last.generation.text == text[: text.index(stop)]
    assert len(last.generation.token_ids) < 30


def test_stop_strings_over_piece_borders():
    stops = StopStrings(["END", "###"])
    shown = [stops.add(part) for part in ("aE", "Nx", "b#", "#", "E", "N", "D", "z")]
    assert "".join(shown) == "aENxb##"
    assert stops.found
    late = StopStrings(["END"])
    assert late.add("xEN") + late.rest() == "xEN"


def test_stop_ends_within_one_token(studio):
    event, seen = threading.Event(), []
    for piece in studio.stream("hello", max_new_tokens=40, should_stop=event):
        seen.append(piece)
        if len(seen) == 5:
            event.set()
    assert [piece.token_id for piece in seen].count(-1) == 1
    assert len(seen) == 6
    assert seen[-1].finish == "stopped"
    assert len(seen[-1].generation.token_ids) == 5
    assert len(seen[-1].generation.trace) == 10


def test_stop_before_the_first_token(studio):
    [piece] = studio.stream("hello", should_stop=lambda: True)
    assert (piece.token_id, piece.finish, piece.generation.text) == (-1, "stopped", "")
    assert piece.generation.trace is None


def test_an_abandoned_stream_leaves_its_turn_free(studio):
    stream = studio.stream("hello", max_new_tokens=40)
    next(stream)
    stream.close()
    assert not studio._one_at_a_time._queue
    assert studio.generate("hello", max_new_tokens=2).finish == "length"


# Mistakes: one sentence, before the model runs


@pytest.fixture
def idle_studio(monkeypatch):
    studio = make_tiny_studio()

    def refuse(*_, **__):
        raise AssertionError("the model ran")

    monkeypatch.setattr(studio.model, "forward", refuse)
    return studio


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        ("", {}, TextError, "The prompt is blank"),
        (" \n", {}, TextError, "The prompt is blank"),
        ("x" * 65, {}, ContextLengthError, "65 tokens and 64 more.*at most 63 new ones"),
        ("x" * 128, {"max_new_tokens": 1}, ContextLengthError, "128 tokens and 1 more.*shorten it"),
        ("x" * 5000, {}, ContextLengthError, "5,000 tokens"),
        ("x", {"temperature": 0}, ConfigError, "leave the temperature out for greedy"),
        ("x", {"temperature": -1}, ConfigError, "leave the temperature out for greedy"),
        ("x", {"temperature": float("nan")}, ConfigError, "between 0.001 and 100"),
        ("x", {"top_p": 0, "temperature": 1}, ConfigError, "top_p"),
        ("x", {"top_p": 0.5}, ConfigError, "give a temperature too"),
        ("x", {"max_new_tokens": 0}, ConfigError, "max_new_tokens"),
        ("x", {"seed": -1}, ConfigError, "seed"),
        ("x", {"stop": ""}, ConfigError, "stop"),
        ("x", {"max_tokens": 3}, ConfigError, "unknown option 'max_tokens'"),
        ("x", {"chat": True}, TextError, "has no chat template"),
        ("x", {"plan": RoutingPlan([Override.solo("sqll")])}, PlanError, "did you mean 'sql'"),
        ("x", {"plan": RoutingPlan([Override.solo("sql", layers=[7])])}, PlanError, "layer 7"),
        ("x", {"plan": RoutingPlan([Override.solo("sql", tokens=[90])])}, PlanError, "never has"),
        ("x", {"plan": RoutingPlan([Override.solo("sql", tokens=Steps(steps=[64]))])},
         PlanError, "64 new tokens never has"),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_the_model_runs(idle_studio, prompt, options, error, message):
    for verb in (idle_studio.generate, idle_studio.stream):
        with pytest.raises(error, match=message) as caught:
            verb(prompt, **options)
        assert "\n" not in str(caught.value)


def test_comparisons_are_checked_too(idle_studio):
    with pytest.raises(ConfigError, match="cannot be named 'base'"):
        idle_studio.compare("x", {"base": None})
    with pytest.raises(ConfigError, match="1 to 16 runs"):
        idle_studio.compare("x", {str(n): None for n in range(16)})
    with pytest.raises(PlanError, match="did you mean 'sql'"):
        idle_studio.sweep("x", "sqll")


@pytest.mark.parametrize(
    "refused",
    [
        Override.solo("sqll"),
        Override.solo("sql", layers=[7]),
        Override.solo("sql", tokens=[90]),
        Override.solo("sql", tokens={"steps": [70]}),
    ],
)
@pytest.mark.parametrize("side", ["A", "B"])
def test_a_refused_plan_of_a_comparison_is_named(idle_studio, side, refused):
    plans = {"A": RoutingPlan(), "B": RoutingPlan()} | {side: RoutingPlan([refused])}
    with pytest.raises(PlanError, match=rf"^Plan {side}: Override 1 "):
        idle_studio.compare("x", plans)


def test_the_last_place_of_the_context_can_be_written(studio):
    assert len(studio.generate("x" * 64, max_new_tokens=64).token_ids) == 64


def test_a_lone_surrogate_does_no_harm(studio):
    assert studio.generate("a\ud800b", max_new_tokens=2).trace.tokens[:3] == ("a", "?", "b")


def test_chat_uses_the_template():
    studio = make_tiny_studio()
    studio.tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    made = studio.generate("hi", chat=True, max_new_tokens=2)
    assert "".join(made.trace.tokens[:-2]) == "[user]hi[assistant]"
    assert made.prompt == "hi"


def test_options_have_one_home():
    assert GenerationOptions().max_new_tokens == 64
    assert GenerationOptions(stop="x").stop == ("x",)
    assert make_tiny_studio(router=RouterSettings(kind="uniform")).generate("x").finish == "length"


# Ends and stops


CHAT = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}<pad>{% endfor %}"


@pytest.mark.parametrize("of", ["generation config", "list", "config", "tokenizer", "template"])
def test_every_end_that_is_known_ends_a_text(of):
    studio = make_tiny_studio()
    base, tokenizer = studio.model.base, studio.tokenizer
    token = studio.generate("hello", max_new_tokens=3).token_ids[0]
    base.generation_config.eos_token_id = base.config.eos_token_id = tokenizer.eos_token = None
    if of == "generation config":
        base.generation_config.eos_token_id = token
    elif of == "list":
        base.generation_config.eos_token_id = [200, token]
    elif of == "config":
        base.config.eos_token_id = [token]
    elif of == "tokenizer":
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(token)
    else:
        tokenizer.chat_template = CHAT
        assert studio._author._end_ids == {0}
        return
    assert token in studio._author._end_ids
    found = studio.generate("hello", max_new_tokens=3)
    assert (found.token_ids, found.finish) == ((token,), "end")


def test_a_prompt_never_ends_with_an_end_mark():
    studio = make_tiny_studio()
    plain = studio.generate("hello", max_new_tokens=3)
    studio.tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    found = studio.generate("hello", max_new_tokens=3)
    assert found.trace.token_ids.tolist() == plain.trace.token_ids.tolist()
    assert found.token_ids == plain.token_ids


def test_what_makes_no_token_is_refused():
    studio = make_tiny_studio()
    studio.tokenizer.chat_template = "{% for m in messages %}{% endfor %}"
    with pytest.raises(TextError, match="makes no token"):
        studio.generate("hello", chat=True)
    studio = make_tiny_studio()
    studio.tokenizer._tokenizer.normalizer = Replace("x", "")
    for read in (studio.generate, studio.trace, lambda text: studio.trace(text, max_tokens=3)):
        with pytest.raises(TextError, match="makes no token"):
            read("xx")


def test_a_stop_string_that_is_a_special_token_stops():
    stops = StopStrings(["a</s>", "<pad>"])
    assert stops.add("xa") == "x"
    assert stops.add_unseen("<s>") == ""
    assert not stops.found
    assert stops.add_unseen("</s>") == ""
    assert (stops.found, stops.text) == (True, "x")
    stops = StopStrings(["<pad>"])
    assert stops.add("x") == "x"
    assert (stops.add_unseen("<pad>"), stops.found, stops.text) == ("", True, "x")


def test_a_long_reference_is_read_in_windows_and_scored_the_same(monkeypatch):
    studio = make_tiny_studio()
    plans = {
        "router": None,
        "places": Override.solo("sql", tokens=Span(3, 20)),
        "steps": Override.bypass(tokens=Steps(Span(2, 9))),
        "text": Override.solo("math", tokens=TextMatch("ll")),
    }
    options = {"reference": " the hills are all around", "max_new_tokens": 4, "trace": False}
    whole = studio.compare("hello all", plans, **options).reference_logprobs
    monkeypatch.setattr("lmoe_studio.generation.shared_prompts.PASS", 20)
    sizes = []
    forward = studio.model.forward

    def watched(ids, *more, **named):
        sizes.append(ids.numel())
        return forward(ids, *more, **named)

    monkeypatch.setattr(studio.model, "forward", watched)
    found = studio.compare("hello all", plans, **options).reference_logprobs
    assert found == pytest.approx(whole, abs=1e-3)
    assert 9 < max(sizes[:8]) <= 20
