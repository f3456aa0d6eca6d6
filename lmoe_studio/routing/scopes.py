"""Where an override holds: numbers of layers, positions and steps, or texts to be found.

Numbers come one by one, as a list, a range, a set, or as NumPy, pandas or torch have them.
"""

from collections.abc import Iterable
from itertools import islice
from operator import index
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from lmoe_studio.routing.matching import MAX_PATTERN, compile_regex
from lmoe_studio.routing.plan_data import PlanData

_MAX_PLACES = 100_000


def not_a_truth(value: Any) -> Any:
    """A number as it came: True and False are none, though Python and NumPy count with them."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


_Place = Annotated[int, BeforeValidator(not_a_truth), Field(ge=0)]


class Span(PlanData):
    """Places from `start` up to `stop`, which is not included; without one, to the end."""

    start: _Place
    stop: Annotated[int, BeforeValidator(not_a_truth)] | None = None

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"a span from {self.start} to {self.stop} is empty")
        return self

    def __contains__(self, place: int) -> bool:
        return self.start <= place and (self.stop is None or place < self.stop)

    def __repr__(self) -> str:
        stop = "" if self.stop is None else f", stop={self.stop}"
        return f"Span(start={self.start}{stop})"

    __str__ = __repr__


def _listed(value: Any) -> Any:
    if value is None or isinstance(value, str | bytes | dict | PlanData):
        return value
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Iterable):
        return tuple(map(not_a_truth, islice(value, _MAX_PLACES + 1)))
    return (index(value),) if hasattr(not_a_truth(value), "__index__") else value


def _place_kind(value: Any) -> str | None:
    if isinstance(value, Span | dict):
        return "span"
    return "list" if isinstance(value, tuple) else None


_List = Annotated[tuple[_Place, ...], Field(max_length=_MAX_PLACES)]
Places = Annotated[
    Annotated[_List, Tag("list")] | Annotated[Span, Tag("span")],
    Discriminator(
        _place_kind,
        custom_error_type="places",
        custom_error_message="expected numbers from 0: one, a list, a range or a span",
    ),
    BeforeValidator(_listed),
]
"""Numbers from 0: one, a list of them, a range, or a `Span`, which may be open."""


class Steps(PlanData):
    """Tokens by the decoding step that wrote them; the first new token is step 0."""

    steps: Places


class TextMatch(PlanData):
    """Tokens that a text overlaps; upper and lower case differ. See `matching.py`."""

    text: str = Field(min_length=1, max_length=MAX_PATTERN)


class RegexMatch(PlanData):
    """Tokens that a match of a regular expression overlaps. See `matching.py`."""

    regex: str = Field(min_length=1, max_length=MAX_PATTERN)

    @field_validator("regex")
    @classmethod
    def _is_sound(cls, pattern: str) -> str:
        compile_regex(pattern)
        return pattern


_KINDS = {"steps": Steps, "text": TextMatch, "regex": RegexMatch, "start": Span}


def _token_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "phase"
    if isinstance(value, dict):
        return next((kind for kind in _KINDS if kind in value), None)
    if isinstance(value, tuple):
        return "list"
    return next((kind for kind, cls in _KINDS.items() if isinstance(value, cls)), None)


TokenScope = Annotated[
    Annotated[Literal["all", "prompt", "generated"], Tag("phase")]
    | Annotated[_List, Tag("list")]
    | Annotated[Span, Tag("start")]
    | Annotated[Steps, Tag("steps")]
    | Annotated[TextMatch, Tag("text")]
    | Annotated[RegexMatch, Tag("regex")],
    Discriminator(
        _token_kind,
        custom_error_type="token_scope",
        custom_error_message="expected all, prompt, generated, a list of positions, "
        "or an object with `start`, `steps`, `text` or `regex`",
    ),
    BeforeValidator(_listed),
]
