"""What a study claims: the true owner, no more than is sure, and nothing of too few tokens."""

import pandas as pd
import pytest

from lmoe_studio.ui.study import study_of

EXPERTS = ["french", "spanish", "sql"]


def frame_of(shares, labels, *, layers=2, tokens=10):
    """A frame of `[text, expert]` shares, the same at every token and layer."""
    rows = [
        {
            "sequence": text, "label": labels[text], "position": position, "phase": "prompt",
            "token": "a", "special": False, "layer": layer, "expert": expert,
            "weight": shares[text][place],
        }
        for text in range(len(shares))
        for position in range(tokens)
        for layer in range(layers)
        for place, expert in enumerate(EXPERTS)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"expert": pd.CategoricalDtype(EXPERTS)})


def answers(shares, labels, **options):
    return study_of(frame_of(shares, labels, **options), facts={}).answers


def test_the_largest_share_and_the_largest_excess_are_both_named_with_their_numbers():
    shares = [[0.5, 0.45, 0.05], [0.5, 0.15, 0.35]]
    told = answers([shares[text % 2] for text in range(20)], ["german", "code"] * 10)
    assert told[:2] == [
        "code: french has the largest share (50.0 %); sql is furthest above its mean "
        "(35.0 % against 20.0 %), most clearly in layer 0 (35.0 %).",
        "german: french has the largest share (50.0 %); spanish is furthest above its mean "
        "(45.0 % against 30.0 %), most clearly in layer 0 (45.0 %).",
    ]


def test_handled_by_is_said_where_share_and_excess_agree_and_are_sure():
    told = answers([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]] * 10, ["fr", "sql"] * 10)
    assert told[0] == (
        "fr is handled by expert french: 80.0 % of the routing in its texts, against 45.0 % on "
        "average over the labels; most clearly in layer 0 (80.0 %)."
    )
    assert told[1].startswith("sql is handled by expert sql: 80.0 %")
    assert told[2].startswith("In 2 of 2 layers the routing says more")


def test_what_may_be_chance_is_not_claimed():
    told = answers([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], ["fr", "sql"])
    assert told[0] == (
        "fr: french has the largest share (80.0 %); it is furthest above its mean "
        "(80.0 % against 45.0 %), which may be chance."
    )
    assert told[2].startswith("In none of 2 layers the routing says more")


def test_routing_that_is_the_same_everywhere_names_nobody():
    told = answers([[1 / 3] * 3] * 8, ["a", "b"] * 4)
    assert told[0] == (
        "a: no expert has a larger share than all others, and no expert is above its mean over "
        "the labels."
    )


@pytest.mark.parametrize(("tokens", "is_judged"), [(1, False), (24, False), (25, True)])
def test_too_few_tokens_get_no_verdict_on_the_routers(tokens, is_judged):
    study = study_of(frame_of([[1, 0, 0]] * 2, ["a", "b"], tokens=tokens), facts={})
    assert any(section.name == "health" for section in study.sections) == is_judged
    assert ("(collapsed)" in study.answers[-1]) == is_judged
    if not is_judged:
        assert f"The texts have {2 * tokens} tokens, which is too little" in study.answers[-1]
