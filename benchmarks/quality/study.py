"""Study: trains and measures what is not there yet; what is done is read from its folder.

WORK/SCALE/ROW-seedN/              the bank, with its curve in training.json
WORK/SCALE/ROW-seedN.MEASURE.json  numbers about it
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.quality import measure
from benchmarks.quality.measure import Values
from benchmarks.quality.rows import TEST, VALIDATION, WIDE, Row
from benchmarks.quality.train import train_row
from lmoe_studio.base_models import BaseModel, load_base
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.files import load_bank
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.data import SkillData, load_skills
from lmoe_studio.training.events import Event, StepDone

Measure = Callable[[BaseModel, ExpertBank, list[SkillData]], Values]


def _of_model(ask: Callable[[MixtureModel, list[SkillData]], Values]) -> Measure:
    return lambda base, bank, skills: measure.on_bank(base, bank, lambda m: ask(m, skills))


MEASURES: dict[str, Measure] = {
    "router": _of_model(measure.router),
    "texts": _of_model(measure.texts),
    "base": _of_model(measure.base_alone),
    "own": _of_model(measure.own),
    "plans": _of_model(measure.plans),
    "blend": _of_model(measure.blend),
    "arrow": measure.arrow,
}


class Study:
    """One scale of the study, in a folder of its own."""

    def __init__(self, scale: str, data: Path, work: Path, say: Callable[[str], None]) -> None:
        self.scale = scale
        self.data = data
        self.folder = work / scale
        self.say = say
        self._base: BaseModel | None = None
        self._skills: dict[tuple[int, int], list[SkillData]] = {}

    def train(self, row: Row, seed: int, experts: Row | None = None) -> None:
        """Train a row if it is not there; `experts` for kind "router only"."""
        folder = self.place(row, seed)
        if row.kind == "shipped" or folder.is_dir():
            return
        given = experts and self.place(experts, seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.say(f"{folder.name}: training")
        started = time.monotonic()
        train_row(row, self._config(row, seed), self.base, given, self._hear)
        self.say(f"{folder.name}: {(time.monotonic() - started) / 60:.1f} minutes")

    def bank(self, row: Row, seed: int) -> ExpertBank:
        """A bank that was trained."""
        return load_bank("demo" if row.kind == "shipped" else self.place(row, seed))

    def measured(self, row: Row, seed: int, what: str) -> Values:
        """Numbers about a trained row, found now if they are not there."""
        file = self.place(row, seed, what)
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
        started = time.monotonic()
        values = MEASURES[what](self.base, self.bank(row, seed), self.skills(row, seed, what))
        values["seconds"] = round(time.monotonic() - started)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        self.say(f"{file.stem}: {_summary(values)} ({values['seconds']} s)")
        return values

    def best(self, rows: list[Row], what: str = "router") -> Row | None:
        """The row with the lowest mean loss on the validation texts, seed 0, of those measured."""
        measured = [row for row in rows if self.place(row, 0, what).is_file()]
        losses = {row.name: self.measured(row, 0, what)["validation"] for row in measured}
        return min(measured, key=lambda row: sum(losses[row.name].values()), default=None)

    def place(self, row: Row, seed: int, what: str | None = None) -> Path:
        """Folder of a bank, or file of a measure of it."""
        return self.folder / (f"{row.name}-seed{seed}" + (f".{what}.json" if what else ""))

    @property
    def base(self) -> BaseModel:
        """The base model, loaded when first asked for."""
        if self._base is None:
            self._base = load_base(device="cpu", dtype="float32", on_progress=self.say)
        return self._base

    def skills(self, row: Row, seed: int, what: str) -> list[SkillData]:
        """The texts of a seed for a measure, the same for every row."""
        count = WIDE if what == "texts" else TEST + VALIDATION
        if (seed, count) not in self._skills:
            config = self._config(row, seed).model_copy(update={"held_out_sequences": count})
            self._skills = {
                (seed, count): load_skills(config, self.base.tokenizer, pack_held_out=True)
            }
        return self._skills[seed, count]

    def _config(self, row: Row, seed: int) -> TrainingConfig:
        return row.config(self.scale, self.data, seed, self.place(row, seed))

    def _hear(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.step % 16 == 0:
            self.say(f"  step {event.step}/{event.steps} loss {event.language_loss:.3f} "
                     f"{event.tokens_per_second:.0f} tokens/s")  # fmt: skip


def _summary(values: Values) -> str:
    losses = values.get("test") or values.get("uniform") or {}
    return f"mean loss {sum(losses.values()) / len(losses):.4f}" if losses else "done"
