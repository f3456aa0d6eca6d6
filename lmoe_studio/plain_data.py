"""JSON and YAML that somebody wrote, read within bounds: the one way in for both.

Whatever is wrong with them is a `PlainDataError`; the caller, who knows what they were to be, makes
it one of our errors. The libraries themselves let other things out (a RecursionError for what is
nested deeply, a bare ValueError for a number of thousands of digits or for the 30th of February)
and keep the last of two values that bear one name.
"""

import json
from collections.abc import Iterable
from typing import Any

import yaml

MAX_DEPTH = 400
"""Objects and lists within one another."""
MAX_VALUES = 1_000_000
"""Of a YAML document with all its aliases written out."""


class PlainDataError(ValueError):
    """What was read is not sound JSON or YAML.

    Attributes:
        reason: what is wrong, as a clause.
        line: where, from 1; None where that is not known.
        column: where in the line, from 1.
    """

    def __init__(self, reason: str, line: int | None = None, column: int | None = None) -> None:
        place = "" if line is None else f" at line {line}, column {column}"
        super().__init__(reason + place)
        self.reason = reason
        self.line = line
        self.column = column


def read_json(raw: str | bytes, *, constants: bool = True) -> Any:
    """A JSON document as plain values.

    Args:
        raw: the document; bytes are UTF-8.
        constants: whether NaN and Infinity are read, which Python writes though JSON has none.

    Raises:
        PlainDataError: it is no JSON, is nested too deeply, holds a number of thousands of digits,
            or names something twice in one object.
    """
    try:
        text = raw if isinstance(raw, str) else raw.decode("utf-8")
        hook = None if constants else _no_constant
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=hook)
    except PlainDataError:
        raise
    except UnicodeDecodeError as error:
        raise PlainDataError(f"its text is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise PlainDataError(error.msg.split(":")[0].lower(), error.lineno, error.colno) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # Python converts no whole number of more than 4,300 digits
        raise PlainDataError("it holds a number of thousands of digits") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _require_shallow(value)
    return value


def read_yaml(text: str) -> Any:
    """A YAML document as plain values; JSON is YAML.

    Raises:
        PlainDataError: as `read_json`; also for a value that is none, such as the 30th of February.
    """
    try:
        value = yaml.load(text, _UniqueLoader)
    except PlainDataError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise PlainDataError(getattr(error, "problem", None) or "it is no YAML", *place) from None
    except RecursionError:
        raise _too_deep() from None
    except (ValueError, OverflowError) as error:
        if "digits" in str(error):  # Python's advice is for programmers
            raise PlainDataError("it holds a number of thousands of digits") from None
        raise PlainDataError(f"it holds a value that cannot be read ({error})") from None
    _require_shallow(value)
    return value


class _UniqueLoader(yaml.SafeLoader):
    """Plain values only, and no name twice in one mapping."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _require_few(node, {})
        return node

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set[tuple[str, str]]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (name := (key.tag, key.value)) in seen:
                    mark = key.start_mark
                    raise PlainDataError(_twice(key.value), mark.line + 1, mark.column + 1)
                seen.add(name)
        return node


def _require_few(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for; aliases can make much of little."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = 0  # of itself within itself: that has no depth that fits
    count = 1
    if isinstance(node, yaml.CollectionNode):
        for item in node.value:
            for one in item if isinstance(item, tuple) else (item,):
                count += _require_few(one, known)
                if count > MAX_VALUES:
                    mark = node.start_mark
                    reason = f"its aliases make more than {MAX_VALUES:,} values of it"
                    raise PlainDataError(reason, mark.line + 1, mark.column + 1)
    known[id(node)] = count
    return count


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise PlainDataError(_twice(next(name for name in names if names.count(name) > 1)))
    return found


def _twice(name: str) -> str:
    return f"{name[:80]!r} occurs twice"


def _no_constant(name: str) -> None:
    raise PlainDataError(f"{name} is not a JSON number")


def _require_shallow(value: Any) -> None:
    """Level by level, as what is nested too deeply for Python cannot be walked by a recursion.

    What YAML refers to several times counts once, and what refers to itself has no depth that fits.
    """
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner = {id(one): one for item in level for one in _items(item) if _is_nest(one)}
        level = list(inner.values())
        if not level:
            return
    raise _too_deep()


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if _is_nest(value) else ()


def _is_nest(value: Any) -> bool:
    return isinstance(value, dict | list | tuple | set)


def _too_deep() -> PlainDataError:
    return PlainDataError("it is nested too deeply")
