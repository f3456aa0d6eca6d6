"""Text scopes: which tokens a text or a regular expression means."""

import hashlib
import threading
import time

import pytest
import regex
from hypothesis import given, strategies as st

from lmoe_studio.errors import PlanError
from lmoe_studio.routing import matching
from lmoe_studio.routing.matching import TokenText, compile_regex, literal
from lmoe_studio.routing.plan import Override, RoutingPlan, TextMatch
from lmoe_studio.routing.settle import PlanRow, needs_text

TOKENS = ["SEL", "ECT", " na", "", "ïve", " SELECT"]  # the fourth is a part of the ï


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (literal("SELECT"), (0, 1, 5)),
        (literal("CT n"), (1, 2)),
        (literal("ï"), (3, 4)),
        (literal("."), ()),
        (compile_regex("[A-Z]+"), (0, 1, 5)),
        (compile_regex("(?i)select$"), (5,)),
        (compile_regex("x*"), ()),  # matches of nothing mean no token
        (compile_regex(r"^\w"), (0,)),
        (compile_regex("."), (0, 1, 2, 3, 4, 5)),
    ],
)
def test_prompt_tokens_that_a_match_overlaps(pattern, expected):
    assert TokenText(TOKENS).positions(pattern) == expected


def test_generated_tokens_count_once_they_complete_a_match():
    text = TokenText(["a b"])
    found = []
    for token in ["SE", "L", "", "x", "SEL"]:
        text.add(token)
        found.append(text.last_matches(literal("SEL")))
    assert found == [False, True, False, False, True]


PATTERNS = [
    r"\d+", "[aeiou]", "[^a ]+", "[a-c]", r"\w+", r"\s", r"\W+", "a", "é+", ".", ".+", "a*", "a+b",
    "ab|b", r"\ba", "b$", "(?i)A", r"[\w-]+", "(?<=a)b+", "(?!a).", "b?", "[[:alpha:]]+", "a{2}", "[ab]?c",
]  # fmt: skip


BOUNDED = [
    "aa", "ab|b", "a|ab", "aba", r"\bab\b", r"\ba", "(?i)A1", r"[a-c]\d", r"1 \-A", r"\Bab" , "é\n|ba", r"a\b|\bb1",
    r"\b", r"aa|\b",
]  # fmt: skip


@given(
    st.sampled_from([*PATTERNS, *BOUNDED]),
    st.lists(st.text("abcé1 -A\n", max_size=4), min_size=1, max_size=12),
)
def test_a_token_is_in_scope_if_a_search_of_the_whole_text_says_so(pattern, tokens):
    compiled = compile_regex(pattern)
    text = TokenText(tokens[:1])
    for place, token in enumerate(tokens[1:], start=1):
        text.add(token)
        before = len("".join(tokens[:place]))
        spans = [match.span() for match in compiled.finditer("".join(tokens[: place + 1]))]
        expected = any(stop > max(start, before) for start, stop in spans)
        assert text.last_matches(compiled) == expected


def test_what_matches_single_characters_is_sought_in_the_new_token_alone(monkeypatch):
    kinds = (r"\d+", "[aeiou.]", "[^a ]+", "[a-c_]+", r"\w", r"[\s.]", "é", r"\.+")
    patterns = [compile_regex(pattern) for pattern in kinds]
    monkeypatch.setattr(matching, "_find", lambda *_: pytest.fail("searched the whole text"))
    for pattern in patterns:
        text = TokenText(["ab 1"])
        text.add("éb 2.")
        assert text.last_matches(pattern)
        text.add("")
        assert not text.last_matches(pattern)


def test_a_pattern_without_repetition_is_sought_near_the_end_alone():
    kinds = [literal("SELECT (a)"), *map(compile_regex, (r"\bSELECT\b|FROM", "(?i)from", "[a-c]x"))]
    for pattern in kinds:
        text = TokenText(["SELECT (a) FROM cx "] * 50)
        for token in ["SELE", "CT", " (a", ") ", "FR", "OM", "c", "x"]:
            text.add(token)
            text.last_matches(pattern)
        assert len(text._text) - text._begins[pattern] <= len(pattern.pattern) + 2


def test_a_match_may_begin_in_the_prompt():
    text = TokenText(["SE"])
    text.add("LECT")
    assert text.last_matches(literal("SELECT"))


def test_settling_step_by_step_equals_settling_at_once():
    plan = RoutingPlan([Override.solo("sql", tokens={"regex": "[aeiou]n|SEL"})])
    prompt, new = ["an", "SE"], ["L", "x", "o", "n", "an"]
    whole = PlanRow(prompt).for_continuation(plan, new).overrides[0].tokens
    row = PlanRow(prompt)
    found = list(row.for_prompt(plan).overrides[0].tokens)
    for position, token in enumerate(new, start=len(prompt)):
        found += row.for_step(plan, position, token).overrides[0].tokens
    assert tuple(found) == whole == (0, 2, 5, 6)


def test_a_plan_without_text_scopes_is_left_as_it_is():
    plan = RoutingPlan([Override.solo("sql")])
    assert not needs_text(plan)
    assert PlanRow([]).for_prompt(plan) is plan
    assert PlanRow([]).for_prompt(None) is None


def test_a_text_that_matches_nothing_keeps_its_place_for_no_token():
    plan = RoutingPlan([Override.solo("x", tokens=TextMatch(text="b"), strength=0.5)])
    [override] = PlanRow(["a"]).for_prompt(plan).overrides
    assert override == plan.overrides[0].model_copy(update={"tokens": ()})


SLOW = ["(a|a)*$", "(a|aa)+$", "(x|x|x)*y", r"(\w|\d)*!", "(a?){40}a{40}b"]


@pytest.mark.parametrize("pattern", SLOW)
def test_a_slow_expression_is_refused_or_runs_in_bounded_time(pattern):
    start = time.thread_time()  # what it computes, however many others compute too
    try:
        compiled = compile_regex(pattern)
    except ValueError as error:
        assert "forever" in str(error)  # noqa: PT017
    else:
        text = TokenText(["a" * 5000 + "0"])
        try:
            text.positions(compiled)
        except PlanError as error:
            assert "takes more than" in str(error)  # noqa: PT017
    assert time.thread_time() - start < 50 * matching._SECONDS


def test_a_search_is_not_refused_because_other_threads_are_busy(monkeypatch):
    pattern, text = regex.compile("a.*a.*[cd]"), "a" * 300
    began = time.thread_time()
    assert matching._find(pattern, text) == []
    monkeypatch.setattr(matching, "_SECONDS", 5 * (time.thread_time() - began))
    over, block = threading.Event(), bytes(1 << 20)

    def compute():  # hashing leaves the interpreter's lock alone, as torch does
        while not over.is_set():
            hashlib.sha256(block)

    threads = [threading.Thread(target=compute) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            assert matching._find(pattern, text) == []
        with pytest.raises(TimeoutError):
            matching._find(regex.compile("(a|b|ab)*(?=c)"), "ab" * 60)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_an_expression_that_is_slow_on_this_text_only_is_refused_in_time(monkeypatch):
    monkeypatch.setattr(matching, "_find", lambda *_: (_ for _ in ()).throw(TimeoutError))
    with pytest.raises(PlanError, match="'a' takes more than"):
        TokenText(["a"]).positions(literal("a"))
