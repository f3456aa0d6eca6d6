"""JSON and YAML: what is sound reads as the libraries read it; all else is one kind of error."""

import json
from contextlib import suppress

import pytest
import yaml
from hypothesis import given, strategies as st

from lmoe_studio.plain_data import MAX_DEPTH, PlainDataError, read_json, read_yaml

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
DIGITS = "9" * 5000


@given(PLAIN)
def test_what_json_writes_reads_back(value):
    assert read_json(json.dumps(value)) == value
    assert read_json(json.dumps(value).encode()) == value


@given(st.text() | st.binary())
def test_json_reads_or_says_why_not(raw):
    with suppress(PlainDataError):
        read_json(raw)


@given(st.text(st.sampled_from("ab1: -[]{}&*!<#'\"\n|>?%@,.~=\t\0é"), max_size=40))
def test_yaml_reads_as_the_library_does_or_says_why_not(text):
    with suppress(PlainDataError):
        assert repr(read_yaml(text)) == repr(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ('{"a": 1,}', "line 1, column 9"),
        ('{"a":\n x}', "expecting value at line 2, column 2"),
        ("", "line 1, column 1"),
        (b'{"a": "\xff"}', r"not UTF-8 \(byte 7\)"),
        (f'{{"a": {DIGITS}}}', "thousands of digits"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 500 + "]" * 500, "nested too deeply"),
        ('{"a": ' * 500 + "1" + "}" * 500, "nested too deeply"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' occurs twice"),
    ],
)
def test_what_is_wrong_with_json_is_named(raw, message):
    with pytest.raises(PlainDataError, match=message):
        read_json(raw)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "line 1, column 5"),
        ("a: 1\nb: 2\na: 3\n", "'a' occurs twice at line 3, column 1"),
        (f"a: {DIGITS}", "it holds a number of thousands of digits"),
        ("a: 2026-02-30", "cannot be read"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 450 + "]" * 450, "nested too deeply"),
        ("a: &a [*a]", "nested too deeply"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: \0", "no YAML"),
        ("{[1]: 2}", "unhashable"),
    ],
)
def test_what_is_wrong_with_yaml_is_named(text, message):
    with pytest.raises(PlainDataError, match=message):
        read_yaml(text)


def test_nesting_reads_up_to_the_limit():
    assert read_json("[" * MAX_DEPTH + "]" * MAX_DEPTH) != []
    many = "[" + ",".join(["[]"] * 10 * MAX_DEPTH) + "]"
    assert len(read_json(many)) == 10 * MAX_DEPTH, "wide is not deep"


def test_constants_are_read_where_python_may_have_written_them():
    assert read_json("[Infinity]") == [float("inf")]
    with pytest.raises(PlainDataError, match="NaN is not a JSON number"):
        read_json("[NaN]", constants=False)


def test_yaml_that_is_merged_may_say_a_name_again():
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: [*b, *a], y: 4}\n"
    assert read_yaml(text)["c"] == {"x": 3, "y": 4}


def _bomb(kind, levels=9):
    first, more = {
        "lists": ("[x, x]", "[{}]"),
        "mappings": ("{a: x, b: x}", "{{{}}}"),
        "merges": ("{a: x}", "{{<<: [{}]}}"),
    }[kind]
    lines = [f"a0: &a0 {first}"]
    for level in range(1, levels + 1):
        names = [f"*a{level - 1}"] * 9
        if kind == "mappings":
            names = [f"k{place}: {name}" for place, name in enumerate(names)]
        lines.append(f"a{level}: &a{level} {more.format(', '.join(names))}")
    return "\n".join(lines)


@pytest.mark.parametrize("kind", ["lists", "mappings", "merges"])
def test_little_that_aliases_make_much_of_is_refused_at_once(kind):
    with pytest.raises(PlainDataError, match=r"aliases make more than 1,000,000 values.* line "):
        read_yaml(_bomb(kind))
    assert read_yaml(_bomb(kind, levels=3))


def test_aliases_of_a_config_are_read():
    read = read_yaml(
        "base: &base {rank: 4}\nskills:\n- {<<: *base, name: a}\n- {<<: *base, name: b}\n"
    )
    assert read["skills"] == [{"rank": 4, "name": "a"}, {"rank": 4, "name": "b"}]
