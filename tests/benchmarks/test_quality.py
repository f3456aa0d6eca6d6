"""The quality study's document: every sentence follows the numbers, also where they turn round."""

import pytest

from benchmarks.quality.document import (
    Difference,
    Line,
    Results,
    answers,
    document,
    over_texts,
    spread,
)
from benchmarks.quality.rows import ALL_ROWS, DEMO, LORAS, MIXTURES, PER_SKILL, SIGMOIDS
from lmoe_studio.training.config import TrainingConfig

SKILLS = ("sql", "french")


def losses(value):
    return dict.fromkeys(SKILLS, value)


def row(kind, *by_seed, **more):
    routing = {
        "information": 1.5, "baseline": 0.1, "effective_a_token": 3.0, "effective_overall": 7.0,
        "lights": {"good": 30}, "dead": 0, "layers": 30,
    }  # fmt: skip
    seeds = {
        str(seed): {"router": {"test": losses(v), "validation": losses(v), "routing": routing}}
        for seed, v in enumerate(by_seed)
    }
    for what, value in more.items():
        seeds["0"][what] = value
    parameters = {"experts": 800, "router": 8}
    return {"title": kind, "kind": kind, "parameters": parameters, "seeds": seeds}


def scale(lora=(2.8, 2.81, 2.82), mixture=(2.7, 2.72, 2.71), **more):
    best = {"uniform": losses(2.9), "best_per_text": losses(2.65), "best_per_token": losses(2.5)}
    rows = {
        LORAS[0].name: row("one LoRA", *lora),
        MIXTURES[0].name: row(
            "mixture", *mixture, base={"test": losses(3.0)}, plans=best, own={"test": losses(2.66)}
        ),
    }
    return {
        "machine": "x86_64, 2 cores", "steps": 64, "batch_size": 4, "sequence_length": 128,
        "rank": 4, "experts": 8, "modules": ["q_proj"], "test_sequences": 12,
        "validation_sequences": 4, "rows": rows | more,
        "chosen": {
            "lora": LORAS[0].name, "mixture": MIXTURES[0].name, "softmax": MIXTURES[0].name,
            "sigmoid": None, "per skill": None,
        },
    }  # fmt: skip


def test_a_mixture_that_is_better_is_said_to_be():
    said = "\n".join(answers(Results(scale())))
    assert "is 0.100 nats a token lower" in said
    assert "by seed -0.100, -0.090, -0.110: outside seed noise" in said
    assert "lower on sql (-0.100), french (-0.100)" in said
    assert "0.200 nats a token higher" in said  # than the oracle
    assert "says about the skill: 1.50 with softmax weights." in said
    assert "the router has 60%" in said  # (3.0 - 2.7) of (3.0 - 2.5)


def test_one_that_is_worse_too():
    said = "\n".join(answers(Results(scale(lora=(2.6, 2.62, 2.61)))))
    assert "is 0.100 nats a token higher" in said
    assert "higher on sql (+0.100), french (+0.100)" in said


def test_a_difference_that_changes_sign_is_noise():
    said = "\n".join(answers(Results(scale(lora=(2.69, 2.73, 2.71)))))
    assert "within seed noise)" in said
    assert "is within seed noise on sql, french" in said


def test_two_that_are_level_are_said_to_be():
    said = "\n".join(answers(Results(scale(lora=(2.7001, 2.72, 2.71)))))
    assert "is level with the LoRA (by seed -0.000, +0.000, +0.000" in said


def test_another_choice_than_the_recipe_is_compared_beside_it():
    values = scale(factor=row("mixture", 2.75))
    values["rows"][MIXTURES[1].name] = row("mixture", 2.69)
    values["chosen"] |= dict.fromkeys(("mixture", "softmax"), MIXTURES[1].name)
    results = Results(values)
    said = "\n".join(answers(results))
    assert "is 0.110 nats a token lower than the LoRA (one seed" in said
    assert "with the demo bank's settings it is 0.100 nats a token lower" in said
    assert "`factor` is 0.050 nats a token higher than `output`" in said  # of the recipe
    assert "the router has 60%" in said  # of the recipe
    assert [line.title for line in results.lines()][2:4] == [
        "L-MoE `output`, softmax weights", "L-MoE `output`, demo recipe",
    ]  # fmt: skip


def test_independent_weights_stand_beside_a_softmax():
    values = scale()
    values["rows"][SIGMOIDS[0].name] = row("mixture", 2.6, 2.65, 2.62)
    values["chosen"] |= dict.fromkeys(("mixture", "sigmoid"), SIGMOIDS[0].name)
    said = "\n".join(answers(Results(values)))
    assert "with sigmoid weights it is 0.187 nats a token lower" in said
    assert "with softmax weights it is 0.100 nats a token lower" in said
    assert (
        "L-MoE `output`, sigmoid weights (of the L-MoEs the best on the validation texts) is lower on "
        in said
    )
    assert "lower on sql (-0.187)" in said


def test_one_seed_says_nothing_of_noise():
    said = "\n".join(answers(Results(scale(lora=(2.8,)))))
    assert "one seed, which says nothing of noise" in said
    assert "sql -0.100, french -0.100" in said


@pytest.mark.parametrize(
    ("by_seed", "certain"),
    [
        ([-0.1, -0.11, -0.09], True),
        ([-0.1, -0.001, -0.2], False),
        ([0.024, 0.02, 0.006], False),
        ([-0.1, 0.1], False),
        ([1], False),
    ],
)
def test_certain_is_what_an_interval_by_students_t_says(by_seed, certain):
    assert Difference(by_seed).is_certain is certain


def test_a_difference_pairs_seeds_that_both_have():
    one = Line("a", {"0": losses(1.0), "1": losses(2.0)})
    other = Line("b", {"1": losses(1.5), "2": losses(9.0)})
    assert Difference.of(one, other).by_seed == [0.5]


def test_spread_shows_the_standard_deviation_where_there_is_one():
    assert spread([2.0]) == "2.000"
    assert spread(iter([1.0, 2.0, 3.0])) == "2.000 ± 1.000"


def test_a_document_is_written_from_whatever_is_there():
    small = scale(factor=row("mixture", 2.71), no_supervision=row("mixture", 2.75))
    full = scale()
    full["chosen"] |= {"mixture": None, "softmax": None}
    full["rows"] = {
        "shipped": row("shipped", 2.48, base={"test": losses(2.99)}),
        LORAS[0].name: row("one LoRA", 2.5),
    }
    text = document({"small": small, "demo": full})
    assert "| base model | 3.000 | 3.000 | 3.000 | +0.190 ± 0.010 | 3 |" in text
    assert "| one LoRA of rank 32 | 2.810 | 2.810 | 2.810 ± 0.010 |  | 3 |" in text
    assert "The demo bank is 0.020 nats a token lower" in text
    assert "8,192" not in text
    assert "32,768 in all" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.count("|") > 3
    with_nothing = document({})
    assert with_nothing.startswith("# ")


def test_two_banks_are_compared_text_by_text():
    one = {"sql": [1.0, 2.0, 3.0], "french": [2.0, 4.0, 6.0]}
    better = {"sql": [1.1, 2.2, 3.1], "french": [2.1, 4.2, 6.2]}
    assert "is -0.150 with a 95 % interval over the texts of -0.196 to -0.104" in over_texts(
        one, better
    )
    assert "which leaves out 0" in over_texts(one, better)
    other = {"sql": [0.9, 2.2, 3.1], "french": [2.1, 3.8, 6.1]}
    assert "which holds 0" in over_texts(one, other)


def test_every_row_is_a_sound_config_of_the_demo(tmp_path):
    demo = TrainingConfig.read(DEMO)
    assert len({row.name for row in ALL_ROWS}) == len(ALL_ROWS)
    for one in ALL_ROWS:
        config = one.config("small", tmp_path, 1, tmp_path / "out")
        TrainingConfig.parse(config.model_dump(mode="json"), source=one.name)
        assert (config.rank, config.target_modules) == (demo.rank, demo.target_modules)
        assert (config.steps, config.seed) == (64, 1)
    assert LORAS[0].config("small", tmp_path, 0, tmp_path).scale == 2
    assert PER_SKILL[1].config("small", tmp_path, 0, tmp_path).learning_rate == 4e-3
    assert MIXTURES[0].config("small", tmp_path, 0, tmp_path).scale == demo.scale
