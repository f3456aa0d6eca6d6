"""Texts become training sequences; all randomness comes from (seed, index)."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.errors import DataError
from lmoe_studio.training.config import SkillConfig, TrainingConfig

MAX_LINE = 1_000_000  # characters; a longer line is no text for training but a broken file


@dataclass(frozen=True)
class SkillData:
    """One skill's sequences of token ids, each at most `sequence_length` long."""

    name: str
    train: list[list[int]]
    held_out: list[list[int]]


def load_skills(config: TrainingConfig, tokenizer: PreTrainedTokenizerBase) -> list[SkillData]:
    """Read and tokenise as much of each skill as the run will use.

    Raises:
        DataError: a file cannot be read, or a skill has no text.
    """
    wanted = config.steps * config.batch_size * config.gradient_accumulation
    each = -(-wanted // len(config.skills))
    return [_load_skill(skill, config, tokenizer, each) for skill in config.skills]


def fingerprints(config: TrainingConfig) -> dict[str, str]:
    """sha256 of every data file, by name."""
    files = [file for skill in config.skills for file in (*skill.train, *skill.held_out)]
    digests = {}
    for path in files:
        with path.open("rb") as file:
            digests[f"{path.parent.name}/{path.name}"] = hashlib.file_digest(
                file, "sha256"
            ).hexdigest()
    return digests


def read_texts(path: Path) -> Iterator[str]:
    """The `text` of each line of a JSONL file; blank ones are passed over.

    Raises:
        DataError: names the file, the line, and what is wrong with it.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), ""), start=1):
                if len(line) > MAX_LINE:
                    raise DataError(
                        f"{path}, line {number}: longer than {MAX_LINE:,} characters; "
                        "give one text a line."
                    )
                if line.strip():
                    text = _text_of(line, path, number)
                    if text.strip():
                        yield text
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from None


class MixedSkills(Dataset[dict[str, Any]]):
    """Training sequences, skills taking turns, each skill's shuffled anew every time round."""

    def __init__(self, skills: list[SkillData], size: int, seed: int) -> None:
        self.skills = skills
        self.size = size
        self.seed = seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        turn, place = divmod(index, len(self.skills))
        skill = int(self._order(turn, 0, len(self.skills))[place])
        sequences = self.skills[skill].train
        epoch, position = divmod(turn, len(sequences))
        chosen = int(self._order(epoch, 1 + skill, len(sequences))[position])
        return {"ids": sequences[chosen], "skill": skill}

    def _order(self, epoch: int, stream: int, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.random.default_rng((self.seed, stream, epoch)).permutation(size)


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Pad on the right; labels are -100 where there is nothing to predict."""
    longest = max(len(row["ids"]) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row["ids"])] = torch.tensor(row["ids"])
        mask[index, : len(row["ids"])] = 1
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": ids.masked_fill(mask == 0, -100),
        "skills": torch.tensor([row["skill"] for row in rows]),
    }


def _load_skill(
    skill: SkillConfig, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase, wanted: int
) -> SkillData:
    texts = [text for file in skill.train for text in read_texts(file)]
    held = [text for file in skill.held_out for text in read_texts(file)]
    if not texts:
        files = ", ".join(map(str, skill.train))
        raise DataError(f"Skill '{skill.name}' has no text in {files}; give it at least one line.")
    texts = _shuffled(texts, config.seed)
    if not held:
        aside = max(1, round(len(texts) * config.held_out_share))
        held, texts = texts[:aside], texts[aside:] or texts[:aside]
    length = config.sequence_length
    return SkillData(
        skill.name,
        _sequences(texts, tokenizer, length, wanted),
        _sequences(_shuffled(held, 0), tokenizer, length, config.held_out_sequences),
    )


def _shuffled(texts: list[str], seed: int) -> list[str]:
    return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]


def _sequences(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, length: int, wanted: int
) -> list[list[int]]:
    """Pack texts, each closed by the end token, into pieces of `length`, until there are `wanted`.

    What is left over makes a shorter piece only where there is no whole one.
    """
    end = tokenizer.eos_token_id
    pieces: list[list[int]] = []
    rest: list[int] = []
    for text in texts:
        rest += [*tokenizer(text, add_special_tokens=False)["input_ids"], end]
        while len(rest) >= length:
            pieces.append(rest[:length])
            rest = rest[length:]
        if len(pieces) >= wanted:
            return pieces[:wanted]
    return pieces or [rest]


def _text_of(line: str, path: Path, number: int) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: no JSON ({error.msg}).") from None
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        keys = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise DataError(f"{path}, line {number}: expected a string named 'text', got {keys}.")
    return text.encode("utf-8", "replace").decode()  # a lone surrogate stops the tokenizer
