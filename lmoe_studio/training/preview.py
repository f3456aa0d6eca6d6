"""What the model will see in a training."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.base_models import BaseModel, load_tokenizer
from lmoe_studio.tracing.token_texts import TokenTexts
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.data import load_skills
from lmoe_studio.training.events import SkillReport
from lmoe_studio.training.examples import IGNORED, Example
from lmoe_studio.training.kept import with_kept_data


@dataclass(frozen=True)
class SkillPreview:
    """What the model will see of one skill."""

    report: SkillReport
    sequences: list[list[tuple[str, bool]]]
    """Its first training sequences: the text of each token, and whether it is learned. The first of
    a sequence is not, as nothing stands before it."""


def preview_training(
    config: TrainingConfig, *, beside: BaseModel | None = None, count: int = 3
) -> list[SkillPreview]:
    """What the model will see in a training: what is read of each skill, and its first sequences.

    Args:
        config: what is to be trained.
        beside: a base model whose tokenizer is used if it is the one that is trained over.
        count: how many sequences of each skill.

    Raises:
        HubError, DataError: a file or dataset cannot be read, or a skill has nothing to learn.
        BaseModelError: the tokenizer cannot be had.
    """
    if beside is not None and beside.identity.id == config.base:
        tokenizer = beside.tokenizer
    else:
        tokenizer = load_tokenizer(config.base)
    return preview(config, tokenizer, count=count)


def preview(
    config: TrainingConfig, tokenizer: PreTrainedTokenizerBase, *, count: int = 3
) -> list[SkillPreview]:
    """Read and tokenise as a run would, and show the first sequences of each skill.

    Raises:
        HubError, DataError: a file or dataset cannot be read, or a skill has nothing to learn.
    """
    texts = TokenTexts(tokenizer)
    with TemporaryDirectory(prefix="lmoe-rows-") as folder:
        kept = with_kept_data(config, Path(folder))
        skills = load_skills(kept.config, tokenizer, names=kept.names)
    return [
        SkillPreview(skill.report, [_shown(example, texts) for example in skill.train[:count]])
        for skill in skills
    ]


def _shown(example: Example, texts: TokenTexts) -> list[tuple[str, bool]]:
    learned = [place > 0 and label != IGNORED for place, label in enumerate(example.labels)]
    return list(zip(texts.sequence(example.ids), learned, strict=True))
