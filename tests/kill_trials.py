"""Kill a trainer at random moments and see whether it ever needs a person.

    python tests/kill_trials.py --kills 60

Each trial starts the same tiny run again and again, kills it (SIGKILL) at a moment drawn from the
seed, and lets it go on, until it finishes. Then its weights and every logged loss must equal, bit for
bit, those of a run that nobody disturbed.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lmoe_studio.experts.files import load_bank
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.events import StepDone, event_from_dict, event_to_dict

_PATIENCE = 120.0  # seconds; a run that takes longer hangs


@dataclass
class Trials:
    """What came of the kills."""

    kills: int = 0
    finished: int = 0
    exact: int = 0
    """Finished runs with the undisturbed run's weights."""
    steps: int = 0
    """Logged steps compared."""
    wrong_steps: int = 0
    """Of those, how many differ, are missing, or came back with other values."""
    stuck: int = 0
    """Runs that could not go on by themselves."""


def kill_trials(folder: Path, *, kills: int, seed: int) -> Trials:
    """Kill until `kills` have been done; the last run is let finish."""
    rng = random.Random(seed)
    config = _config(folder)
    started = time.monotonic()
    assert _attempt(config, folder / "reference", None)
    whole = time.monotonic() - started
    weights, losses = _tensors(folder / "reference"), _losses(folder / "reference")
    found, trial = Trials(), 0
    while found.kills < kills or trial == 0:
        trial += 1
        place, done = folder / f"trial-{trial}", False
        while not done:
            killing = found.kills < kills
            done = _attempt(config, place, rng.uniform(0, whole) if killing else None)
            found.kills += killing and not done
            if not done and not killing:
                found.stuck += 1
                break
        if done:
            found.finished += 1
            found.exact += _tensors(place) == weights
            _compare(found, _losses(place), losses)
    return found


def _attempt(config: TrainingConfig, place: Path, after: float | None) -> bool:
    """Run in a process of its own; whether it finished before it was killed."""
    place.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lmoe_studio.training.run", "tiny_models"])
    process = context.Process(target=_train, args=(config, place))
    process.start()
    process.join(_PATIENCE if after is None else after)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode == 0


def _train(config: TrainingConfig, place: Path) -> None:
    import torch
    from tiny_models import make_tiny_base, make_tiny_tokenizer

    from lmoe_studio.base_models import BaseModel, identify
    from lmoe_studio.training.run import run_training

    torch.set_num_threads(1)
    model = make_tiny_base()
    base = BaseModel(model, make_tiny_tokenizer(), identify(model, "tiny"))
    with (place / "events.jsonl").open("a") as log:

        def note(event):
            log.write(json.dumps(event_to_dict(event)) + "\n")
            log.flush()

        run_training(config.model_copy(update={"out": place / "bank"}), note, base=base)


def _config(folder: Path) -> TrainingConfig:
    rng = random.Random(0)
    skills = []
    for name, letters in (("vowels", "aeiou "), ("digits", "0123456789 ")):
        texts = ["".join(rng.choice(letters) for _ in range(60)) for _ in range(40)]
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
        skills.append({"name": name, "train": [str(path)]})
    values = {
        "name": "tiny", "base": "tiny", "out": "bank", "skills": skills, "rank": 2, "steps": 24,
        "sequence_length": 32, "gradient_accumulation": 2, "device": "cpu", "checkpoint_every": 2,
        "eval_every": 5, "early_stopping": 9, "held_out_sequences": 2, "eval_sequences": 2,
    }  # fmt: skip
    return TrainingConfig.parse(values, source="trial")


def _tensors(place: Path) -> list[bytes]:
    bank = load_bank(place / "bank")
    tensors = [t for e in bank.experts for f in e.adapter.factors.values() for t in (f.a, f.b)]
    return [tensor.numpy().tobytes() for tensor in (*tensors, *bank.router_state.values())]


def _losses(place: Path) -> dict[int, set[tuple[float, ...]]]:
    """Everything said of each step; a half-written last line is of a killed process."""
    said: dict[int, set[tuple[float, ...]]] = {}
    for line in (place / "events.jsonl").read_text().splitlines():
        try:
            event = event_from_dict(json.loads(line))
        except ValueError:
            continue
        if isinstance(event, StepDone):
            values = (event.loss, event.language_loss, event.balance_loss, event.z_loss,
                      event.skill_loss, event.learning_rate, event.gradient_norm,
                      *event.shares.values())  # fmt: skip
            said.setdefault(event.step, set()).add(values)
    return said


def _compare(found: Trials, said: dict, expected: dict) -> None:
    found.steps += len(expected)
    found.wrong_steps += sum(said.get(step) != values for step, values in expected.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = kill_trials(Path(folder), kills=options.kills, seed=options.seed)
    print(json.dumps(vars(found), indent=2))


if __name__ == "__main__":
    main()
