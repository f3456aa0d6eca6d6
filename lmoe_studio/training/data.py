"""Data files become training sequences; all randomness comes from (seed, epoch, index).

A file is read twice and never kept: once to check and count its rows, once to pick those that the
run will use, in an order drawn from the seed. Memory holds no more than the run needs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.errors import DataError
from lmoe_studio.training.config import SkillConfig, TrainingConfig
from lmoe_studio.training.events import SkillReport
from lmoe_studio.training.examples import IGNORED, Example, Examples, TextRow, text_rows

MAX_CHARACTERS = 2**30
"""Of a file's texts, or twenty times its size if that is more: a bomb unpacks to more than that."""
_TOKENS_A_CHARACTER = 0.2  # a low guess, from which it is said how many texts to pick at first


@dataclass(frozen=True)
class SkillData:
    """One skill's sequences, each at most `sequence_length` tokens long."""

    name: str
    train: list[Example]
    held_out: list[Example]
    report: SkillReport


def load_skills(
    config: TrainingConfig, tokenizer: PreTrainedTokenizerBase, *, processes: int = 1
) -> list[SkillData]:
    """Read and tokenise as much of each skill as the run will use.

    Args:
        config: what to train.
        tokenizer: the base model's.
        processes: how many train together, each with its own batch.

    Raises:
        DataError: a file cannot be read, or a skill has nothing to learn.
    """
    each = -(-sequences_of(config, processes) // len(config.skills))
    return [_load_skill(skill, config, tokenizer, each) for skill in config.skills]


def sequences_of(config: TrainingConfig, processes: int = 1) -> int:
    """How many sequences a run reads."""
    return config.steps * config.batch_size * config.gradient_accumulation * processes


class MixedSkills(Dataset[dict[str, Any]]):
    """Training sequences, skills taking turns, each skill's shuffled anew every time round."""

    def __init__(
        self, skills: list[SkillData], size: int, seed: int, labels: Sequence[int] | None = None
    ) -> None:
        """Prepare `size` sequences; `labels` has the expert that each skill is supervised to."""
        self.skills = skills
        self.size = size
        self.seed = seed
        self.labels = range(len(skills)) if labels is None else labels

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        turn, place = divmod(index, len(self.skills))
        skill = int(self._order(turn, 0, len(self.skills))[place])
        sequences = self.skills[skill].train
        epoch, position = divmod(turn, len(sequences))
        chosen = int(self._order(epoch, 1 + skill, len(sequences))[position])
        return {"example": sequences[chosen], "skill": self.labels[skill]}

    def _order(self, epoch: int, stream: int, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.random.default_rng((self.seed, stream, epoch)).permutation(size)


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Pad on the right; labels are IGNORED where there is nothing to learn."""
    longest = max(len(row["example"]) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for index, row in enumerate(rows):
        example: Example = row["example"]
        ids[index, : len(example)] = torch.tensor(example.ids)
        labels[index, : len(example)] = torch.tensor(example.labels)
        mask[index, : len(example)] = 1
    skills = torch.tensor([row["skill"] for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "skills": skills}


@dataclass
class _Files:
    """The rows of some files that hold something to learn, by number; read anew each time."""

    paths: tuple[Path, ...]
    dropped: Counter[str] = field(default_factory=Counter)
    count: int = 0
    characters: int = 0

    def survey(self) -> None:
        """Read all rows once: check, count, and note what is left out."""
        for path in self.paths:
            limit = max(MAX_CHARACTERS, 20 * path.stat().st_size if path.is_file() else 0)
            read = 0
            for row in text_rows(path):
                read += sum(len(text) for _, text in row.parts)
                if read > limit:
                    raise DataError(f"{row.where}: more than {limit:,} characters; split the file.")
                if row.is_blank:
                    self.dropped["blank"] += 1
                    continue
                self.dropped["broken characters replaced"] += row.repaired
                self.count += 1
            self.characters += read

    def pick(self, numbers: Iterable[int]) -> Iterator[TextRow]:
        """Some rows, in the order of `numbers`."""
        order = list(numbers)
        wanted, found = set(order), dict[int, TextRow]()
        for number, row in enumerate(self._rows()):
            if number in wanted:
                found[number] = row
                if len(found) == len(wanted):
                    break
        return (found.pop(number) for number in order)

    def hashes(self, numbers: Iterable[int]) -> frozenset[int]:
        """Of some rows' texts."""
        wanted = set(numbers)
        rows = enumerate(self._rows())
        return frozenset(hash(row.parts) for number, row in rows if number in wanted)

    def _rows(self) -> Iterator[TextRow]:
        return (row for path in self.paths for row in text_rows(path) if not row.is_blank)


def _load_skill(
    skill: SkillConfig, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase, wanted: int
) -> SkillData:
    train, held_out = _Files(skill.train), _Files(skill.held_out)
    train.survey()
    held_out.survey()
    order = np.random.default_rng(config.seed).permutation(train.count).tolist()
    held_order = list(range(held_out.count))
    if not skill.held_out:
        aside = max(1, round(train.count * config.held_out_share))
        held_out, held_order, order = train, order[:aside], order[aside:]
    if not order or not held_order:
        raise DataError(_too_few(skill, train.count))
    held_order = [held_order[i] for i in np.random.default_rng(0).permutation(len(held_order))]
    examples = Examples(tokenizer, config.template)
    held = _Packer(examples, config.sequence_length, Counter()).pack(
        held_out, held_order, config.held_out_sequences
    )
    packer = _Packer(examples, config.sequence_length, train.dropped, held_out.hashes(held_order))
    learned = packer.pack(train, order, wanted)
    if not learned or not held:
        raise DataError(
            f"Skill '{skill.name}' has nothing {'to train on' if held else 'to evaluate'} in "
            f"{_named(skill.train if held else skill.held_out or skill.train)}: every row is a copy "
            "of a held-out one, or its prompt leaves no room for the response within "
            f"sequence_length {config.sequence_length}."
        )
    report = SkillReport(
        skill.name,
        texts=len(order),
        held_out_texts=len(held_order),
        sequences=len(learned),
        tokens=sum(map(len, learned)),
        dropped=dict(+train.dropped),
    )
    return SkillData(skill.name, learned, held, report)


def _too_few(skill: SkillConfig, count: int) -> str:
    if count and skill.held_out:
        return (
            f"Skill '{skill.name}' has no text in {_named(skill.held_out)}; give it at least one."
        )
    least = "at least one" if skill.held_out else "two or more, or a held-out file"
    came = "one text" if count else "no text"
    return f"Skill '{skill.name}' has {came} in {_named(skill.train)}; give it {least}."


@dataclass
class _Packer:
    """Packs examples into sequences of one length.

    Texts are packed end to end and cut where a sequence is full. Pairs and conversations stay whole:
    a sequence holds as many as fit.
    """

    examples: Examples
    length: int
    dropped: Counter[str]
    skipped: frozenset[int] = frozenset()
    """Hashes of rows that are held out: a copy of one is not trained on."""

    def pack(self, files: _Files, order: Sequence[int], wanted: int) -> list[Example]:
        """As many sequences as wanted, or all there are, from the rows in this order."""
        mean = max(1.0, files.characters / max(1, files.count))
        guess = int(wanted * self.length / (mean * _TOKENS_A_CHARACTER)) + 8
        while True:
            noted = Counter[str]()
            found = list(islice(self._sequences(files.pick(order[:guess]), noted), wanted + 1))
            # The last sequence may be a rest that further texts would have filled.
            if len(found) > wanted or guess >= len(order):
                self.dropped += noted
                return found[:wanted]
            guess *= 2

    def _sequences(self, rows: Iterable[TextRow], noted: Counter[str]) -> Iterator[Example]:
        ids, labels = list[int](), list[int]()
        whole = list[Example]()
        for row in rows:
            if hash(row.parts) in self.skipped:
                noted["copy of a held-out text"] += 1
                continue
            example = self.examples.of(row)
            if row.kind == "text":
                ids += example.ids
                labels += example.labels
                while len(ids) >= self.length:
                    yield Example(ids[: self.length], labels[: self.length])
                    ids, labels = ids[self.length :], labels[self.length :]
            elif (cut := self._cut(example, noted)) is not None:
                if sum(map(len, whole)) + len(cut) > self.length:
                    yield _joined(whole)
                    whole = []
                whole.append(cut)
        for rest in (_joined(whole), Example(ids, labels)):
            if rest.learned:
                yield rest

    def _cut(self, example: Example, noted: Counter[str]) -> Example | None:
        if len(example) <= self.length:
            return example
        cut = Example(example.ids[: self.length], example.labels[: self.length])
        noted["response cut" if cut.learned else "prompt too long"] += 1
        return cut if cut.learned else None


def _joined(examples: Sequence[Example]) -> Example:
    return Example(
        [token for example in examples for token in example.ids],
        # The first token of an example is not to be predicted from the example before it.
        [
            label if place else IGNORED
            for example in examples
            for place, label in enumerate(example.labels)
        ],
    )


def _named(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))
