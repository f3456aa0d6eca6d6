"""PlanRow: settles text scopes for one sequence, a plan's or token types', so that routing needs no texts.

`TextMatch` and `RegexMatch` become positions before each forward pass.
"""

from collections.abc import Callable, Iterable, Sequence

import regex

from lmoe_studio.routing.matching import Tokens, TokenText, compile_regex, literal
from lmoe_studio.routing.plan import Override, RegexMatch, RoutingPlan, TextMatch
from lmoe_studio.routing.types import TokenType


def needs_text(plan: RoutingPlan | None) -> bool:
    """Whether a plan has a scope that only the tokens' texts can settle."""
    return plan is not None and any(_pattern(one) is not None for one in plan.overrides)


class PlanRow:
    """The texts of one sequence, as far as its plan wants to know them."""

    def __init__(self, prompt: Tokens) -> None:
        """`prompt`: the text that each token adds; empty for a part of a character."""
        self._text = TokenText(prompt)

    def for_prompt(self, plan: RoutingPlan | None) -> RoutingPlan | None:
        """The plan for the pass over the prompt."""
        return _settled(plan, self._text.positions)

    def take(self, token: str) -> None:
        """Take in a token that the model wrote, for which no plan is asked."""
        self._text.add(token)

    def for_step(self, plan: RoutingPlan | None, position: int, token: str) -> RoutingPlan | None:
        """The plan for the pass over one new token, which is taken in."""
        self.take(token)
        return _settled(plan, lambda one: (position,) if self._text.last_matches(one) else ())

    def for_continuation(self, plan: RoutingPlan | None, tokens: Tokens) -> RoutingPlan | None:
        """The plan for one pass over the prompt and given new tokens, which are taken in."""
        found = self._found(_patterns(plan.overrides if plan else ()), tokens)
        return _settled(plan, found.__getitem__)

    def types_for_continuation(
        self, types: Sequence[TokenType], tokens: Tokens
    ) -> tuple[TokenType, ...]:
        """Token types for the same pass; a type without a match claims no token."""
        found = self._found(_patterns(types), tokens)
        return tuple(
            one.model_copy(update={"tokens": found[pattern]}) if (pattern := _pattern(one)) else one
            for one in types
        )

    def _found(
        self, patterns: "set[regex.Pattern[str]]", tokens: Tokens
    ) -> "dict[regex.Pattern[str], tuple[int, ...]]":
        found = {pattern: list(self._text.positions(pattern)) for pattern in patterns}
        for position, token in enumerate(tokens, start=self._text.prompt_length):
            self._text.add(token)
            for pattern in patterns:
                if self._text.last_matches(pattern):
                    found[pattern].append(position)
        return {pattern: tuple(positions) for pattern, positions in found.items()}


def _settled(
    plan: RoutingPlan | None, find: Callable[["regex.Pattern[str]"], tuple[int, ...]]
) -> RoutingPlan | None:
    if plan is None or not needs_text(plan):
        return plan
    settled = []
    for override in plan.overrides:
        pattern = _pattern(override)
        if pattern is None:
            settled.append(override)
        else:  # without a match it keeps its place, for no token: steps stay of one kind
            settled.append(override.model_copy(update={"tokens": find(pattern)}))
    return plan.model_copy(update={"overrides": tuple(settled)})


def types_need_text(types: Sequence[TokenType]) -> bool:
    """Whether only the tokens' texts can tell their types."""
    return bool(_patterns(types))


def _patterns(scoped: "Iterable[Override | TokenType]") -> "set[regex.Pattern[str]]":
    return {pattern for one in scoped if (pattern := _pattern(one)) is not None}


def _pattern(scoped: "Override | TokenType") -> "regex.Pattern[str] | None":
    match scoped.tokens:
        case TextMatch(text=text):
            return literal(text)
        case RegexMatch(regex=pattern):
            return compile_regex(pattern)
        case _:
            return None
