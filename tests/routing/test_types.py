"""Token types: settled like a plan's scopes, the last claim holds."""

import pytest
import torch

from lmoe_studio.errors import ConfigError, PlanError
from lmoe_studio.routing.router import TokenBatch
from lmoe_studio.routing.types import TokenType, compile_types


@pytest.fixture
def tokens():
    """Two texts of a prompt and two written tokens; the first is padded on the left."""
    is_token = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
    positions = (is_token.long().cumsum(-1) - 1).clamp_min(0)
    steps = torch.tensor([[-1, -1, -1, 0, 1], [-1, -1, -1, 0, 1]])
    return TokenBatch(torch.arange(10).view(2, 5), positions, is_token, steps)


def types(*claims):
    return tuple(
        TokenType(name=f"type {number}", tokens=scope) for number, scope in enumerate(claims)
    )


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ((), [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]),
        (("generated",), [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]),
        (("prompt", "generated"), [[1, 1, 1, 2, 2], [1, 1, 1, 2, 2]]),
        (("all", (1, 3)), [[1, 1, 2, 1, 2], [1, 2, 1, 2, 1]]),
        (({"start": 2}, {"steps": [0]}), [[0, 0, 0, 2, 1], [0, 0, 1, 2, 1]]),
        (({"steps": [0]}, "all"), [[2, 2, 2, 2, 2], [2, 2, 2, 2, 2]]),
    ],
)
def test_the_last_claim_holds(tokens, claims, expected):
    found = compile_types([types(*claims)] * 2, tokens)
    assert found.tolist() == expected
    again = compile_types([types(*claims), types(*claims)], tokens)  # a list of its own each
    assert torch.equal(found, again)


def test_each_text_has_what_its_scopes_settled_to(tokens):
    found = compile_types([types((0,)), types((4,))], tokens)
    assert found.tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 0, 1]]


def test_a_text_has_to_be_settled_first(tokens):
    with pytest.raises(PlanError, match=r"type 0.* is about the tokens' texts"):
        compile_types([types({"text": "x"})] * 2, tokens)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "other", "tokens": "all"}, "'other' is the type of tokens that no type claims"),
        ({"name": "code", "tokens": []}, "an empty list claims no token"),
        ({"name": "code", "tokens": "everything"}, "tokens.phase: .*'everything'"),
        ({"name": "code", "tokens": {"regex": "("}}, "is no regular expression"),
        ({"name": "", "tokens": "all"}, "name: "),
    ],
)
def test_mistakes_are_one_sentence(values, message):
    with pytest.raises(ConfigError, match=message):
        TokenType.parse(values, source="The type")
