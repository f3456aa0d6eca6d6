"""Data files become training sequences; all randomness comes from (seed, epoch, index).

A file is read twice and never kept: once to check and count its rows, once to pick those that the
run will use, in an order drawn from the seed. Memory holds no more than the run needs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.errors import DataError
from lmoe_studio.sources.named import Source
from lmoe_studio.training.config import SkillConfig, TrainingConfig
from lmoe_studio.training.events import SkillReport
from lmoe_studio.training.examples import IGNORED, Example, Examples
from lmoe_studio.training.kept import PARTS, paths_of
from lmoe_studio.training.packing import Packer
from lmoe_studio.training.row_files import RowFiles


@dataclass(frozen=True)
class SkillData:
    """One skill's sequences, each at most `sequence_length` tokens long."""

    name: str
    train: list[Example]
    held_out: list[Example]
    """Each alone: the first tokens of a text, a pair or a conversation."""
    report: SkillReport

    def with_held_out(self, tokens: int) -> "SkillData":
        """With no more held-out examples than hold this many tokens."""
        sizes = accumulate(map(len, self.held_out))
        count = next((n for n, size in enumerate(sizes, start=1) if size >= tokens), None)
        return replace(self, held_out=self.held_out[:count])


def load_skills(
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    processes: int = 1,
    pack_held_out: bool = False,
    names: Mapping[Path, str] | None = None,
) -> list[SkillData]:
    """Read and tokenise as much of each skill as the run will use.

    Args:
        config: what to train, its data kept as files (`with_kept_data`).
        tokenizer: the base model's.
        processes: how many train together, each with its own batch.
        pack_held_out: held-out texts share sequences as those for training do; else each is read
            alone, as in use.
        names: what some of the files are called by whoever asked for them.

    Raises:
        DataError: a file cannot be read, or a skill has nothing to learn.
    """
    each = -(-sequences_of(config, processes) // len(config.skills))
    return [
        _load_skill(skill, config, tokenizer, each, pack_held_out, names or {})
        for skill in config.skills
    ]


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
    labels = torch.full_like(ids, IGNORED)  # also of a first token, which nothing stands before
    steps = torch.full_like(ids, -1)
    for index, row in enumerate(rows):
        example: Example = row["example"]
        ids[index, : len(example)] = torch.tensor(example.ids)
        labels[index, 1 : len(example)] = torch.tensor(example.labels[1:])
        steps[index, : len(example)] = torch.tensor(example.steps)
        mask[index, : len(example)] = 1
    skills = torch.tensor([row["skill"] for row in rows])
    found = {"input_ids": ids, "attention_mask": mask, "steps": steps}
    return found | {"labels": labels, "skills": skills}


def _load_skill(
    skill: SkillConfig,
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    wanted: int,
    pack_held_out: bool,
    names: Mapping[Path, str],
) -> SkillData:
    train, held_out = (RowFiles(paths_of(skill, part), names) for part in PARTS)
    train.survey()
    held_out.survey()
    found = (*train.found, *held_out.found)
    order = np.random.default_rng(config.seed).permutation(train.count).tolist()
    held_order = list(range(held_out.count))
    if not skill.held_out:
        aside = max(1, round(train.count * config.held_out_share))
        held_out, held_order, order = train, order[:aside], order[aside:]
    if not order or not held_order:
        raise DataError(_too_few(skill, train.count))
    held_order = [held_order[i] for i in np.random.default_rng(0).permutation(len(held_order))]
    examples = Examples(tokenizer, config.template)
    measured = Packer(examples, config.sequence_length, Counter())
    gather = measured.pack if pack_held_out else measured.alone
    held = gather(held_out, held_order, config.held_out_sequences)
    packer = Packer(examples, config.sequence_length, train.dropped, held_out.hashes(held_order))
    learned = packer.pack(train, order, wanted)
    if not learned or not held:
        raise DataError(
            f"Skill '{skill.name}' has nothing {'to train on' if held else 'to evaluate'} in "
            f"{_named(skill.train if held else skill.held_out or skill.train)}: every row is a copy "
            "of a held-out one, is a single token, or its prompt leaves no room for the response within "
            f"sequence_length {config.sequence_length}."
        )
    report = SkillReport(
        skill.name,
        texts=len(order),
        held_out_texts=len(held_order),
        sequences=len(learned),
        tokens=sum(map(len, learned)),
        dropped=dict(+train.dropped),
        sources=found,
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


def _named(sources: Sequence[Source]) -> str:
    return ", ".join(map(str, sources))
