"""Print generated questions as JSON lines of [kind, question, answer].

The arguments name the kinds that training never sees; of these a sample is enough. Runs in the environment that ``sources/math_questions.py`` makes, with PYTHONHASHSEED=0.
"""

import importlib
import importlib.util
import json
import random
import sys
import types
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import sympy.core.random
from sympy.solvers.diophantine.diophantine import base_solution_linear

# mathematics-dataset imports this name from where an older SymPy had it. The module is looked up
# by name because the attribute sympy.solvers.diophantine is a function.
vars(importlib.import_module("sympy.solvers.diophantine"))["base_solution_linear"] = (
    base_solution_linear
)
# ... and uses NumPy's former name for Python's own object type.
vars(np)["object"] = object

from mathematics_dataset import generate_settings  # noqa: E402  (needs the line above)
from mathematics_dataset.modules import modules  # noqa: E402

PER_MODULE = 1_250
# About what a kind that is trained on gives to held-out.
PER_KEPT_BACK_MODULE = 100
PER_GYM_DATASET = 680
# The composed modules, and these two, give other questions on every run whatever the seed.
NOT_REPEATABLE = {"polynomials__add", "polynomials__compose"}
# gsm_symbolic, in the same package, is left alone: its templates are CC BY-NC-ND.
GYM_DATASETS = {
    "algebra.simple_equations": "simple_equations",
    "algorithmic.base_conversion": "base_conversion",
    "algorithmic.number_sorting": "number_sorting",
    "arithmetic.basic_arithmetic": "basic_arithmetic",
    "arithmetic.calendar_arithmetic": "calendar_arithmetic",
    "arithmetic.chain_sum": "chain_sum",
    "arithmetic.count_bits": "count_bits",
    "arithmetic.decimal_chain_sum": "decimal_chain_sum",
    "arithmetic.fraction_simplification": "fraction_simplification",
    "arithmetic.gcd": "gcd",
    "arithmetic.lcm": "lcm",
    "arithmetic.leg_counting": "leg_counting",
    "arithmetic.prime_factorization": "prime_factorization",
    "arithmetic.products": "products",
    "arithmetic.time_intervals": "time_intervals",
    "cognition.number_sequences": "number_sequence",
}
GYM_OPTIONS = {
    # Where a negated bracket does not divide evenly, the answer is rounded without a word.
    "basic_arithmetic": {"operators": ["+", "-", "*"]},
    # The answers of "time_ms" are cut, not rounded, so many are one millisecond off.
    "time_intervals": {"task_types": ["time", "time_seconds", "date", "datetime", "datetime_tz"]},
}


def main() -> None:
    """Print every question of both packages."""
    for kind, question, answer in (*deepmind_questions(set(sys.argv[1:])), *gym_questions()):
        print(json.dumps([kind, question.strip(), answer.strip()], ensure_ascii=False))
    assert not any("gsm" in name for name in sys.modules), "gsm_symbolic must not be loaded"


def deepmind_questions(kept_back: set[str]) -> Iterator[tuple[str, str, str]]:
    """Questions of the mathematics-dataset modules, over their whole range of difficulty."""
    flat = {
        f"{topic}__{name}": sample
        for topic, samples in modules.train(lambda entropy: entropy).items()
        for name, sample in samples.items()
    }
    for kind in sorted(flat):
        if kind.endswith("_composed") or kind in NOT_REPEATABLE:
            continue
        seed = zlib.crc32(kind.encode())
        random.seed(seed)
        sympy.core.random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  (the package draws from the global generator)
        for _ in range(PER_KEPT_BACK_MODULE if kind in kept_back else PER_MODULE):
            question, answer = deepmind_question(flat[kind])
            yield kind, question, answer


def deepmind_question(sample: Callable[[], Any]) -> tuple[str, str]:
    """One question within the package's own limits of length."""
    while True:
        problem = sample()
        question, answer = str(problem.question), str(problem.answer)
        if (
            len(question) <= generate_settings.MAX_QUESTION_LENGTH
            and len(answer) <= generate_settings.MAX_ANSWER_LENGTH
        ):
            return question, answer


def gym_questions() -> Iterator[tuple[str, str, str]]:
    """Questions of the chosen reasoning-gym datasets."""
    bare_gym_packages()
    factory = importlib.import_module("reasoning_gym.factory")
    for module, name in GYM_DATASETS.items():
        importlib.import_module(f"reasoning_gym.{module}")
        options = GYM_OPTIONS.get(name, {})
        seed = zlib.crc32(name.encode())
        dataset = factory.create_dataset(name, seed=seed, size=PER_GYM_DATASET, **options)
        for item in dataset:
            # A duration below zero comes of a clock that passed midnight.
            if name != "time_intervals" or not item["answer"].startswith("-"):
                yield name, item["question"], item["answer"]


def bare_gym_packages() -> None:
    """Stand in for reasoning-gym's package files, which import every dataset it has.

    With them empty, only the chosen modules load: no gsm_symbolic, and none of the ten
    libraries the other datasets need.
    """
    spec = importlib.util.find_spec("reasoning_gym")
    assert spec is not None, "reasoning-gym is installed"
    [root] = list(spec.submodule_search_locations or ())
    folders = {module.split(".")[0] for module in GYM_DATASETS} | {"coaching"}
    for folder in ("", *sorted(folders)):
        package = types.ModuleType(f"reasoning_gym.{folder}".rstrip("."))
        package.__path__ = [f"{root}/{folder}"]
        sys.modules[package.__name__] = package
    for name in ("attributes", "base_curriculum"):
        module = importlib.import_module(f"reasoning_gym.coaching.{name}")
        vars(sys.modules["reasoning_gym.coaching"]).update(vars(module))


if __name__ == "__main__":
    main()
