"""How the next token is chosen from the model's logits: greedy or sampled, by transformers' rules."""

import math
from typing import cast

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lmoe_studio.config import Config
from lmoe_studio.errors import OverflowedError

GREEDY = "leave the temperature out for greedy decoding, which always takes the likeliest token"


class SamplingOptions(Config):
    """Without a temperature the likeliest token is taken; with one, a token is drawn."""

    temperature: float | None = Field(default=None, description="None decodes greedily.")
    top_k: int | None = Field(default=None, ge=1, description="Draw from the k likeliest.")
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="Draw from the likeliest that together have this."
    )
    min_p: float | None = Field(
        default=None, ge=0, le=1, description="Leave out what is less likely than this × the best."
    )
    repetition_penalty: float = Field(
        default=1.0, gt=0, le=10, description="Above 1, tokens that occurred grow less likely."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_text_of_a_number(cls, value: object, info: ValidationInfo) -> object:
        """A form and a command line give numbers; a text in Python's hands is a mistake."""
        name = info.field_name or ""
        if isinstance(value, str) and not isinstance(cls.model_fields[name].default, tuple | bool):
            raise ValueError("expected a number, not text")
        return value

    @field_validator("temperature")
    @classmethod
    def _is_sound(cls, value: float | None) -> float | None:
        if value is not None and not 1e-3 <= value <= 100:
            raise ValueError(f"a temperature lies between 0.001 and 100; {GREEDY}")
        return value

    @model_validator(mode="after")
    def _draws(self) -> "SamplingOptions":
        given = [name for name in ("top_k", "top_p", "min_p") if getattr(self, name) is not None]
        if given and self.temperature is None:
            raise ValueError(f"{given[0]} is about drawing tokens; give a temperature too, say 1")
        return self

    def processors(self) -> LogitsProcessorList:
        """What transformers does to logits for these options, in its order."""
        found = LogitsProcessorList()
        if self.repetition_penalty != 1:
            found.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.temperature is not None and self.temperature != 1:
            found.append(TemperatureLogitsWarper(self.temperature))
        if self.top_k is not None:
            found.append(TopKLogitsWarper(self.top_k))
        if self.top_p is not None and self.top_p < 1:
            found.append(TopPLogitsWarper(self.top_p))
        if self.min_p is not None:
            found.append(MinPLogitsWarper(self.min_p))
        return found


class Sampler:
    """Chooses the tokens of one sequence; its own seed, so that a row of a batch runs as alone."""

    def __init__(self, options: SamplingOptions, seed: int, *, drawn: int = 0) -> None:
        """`drawn`: how many tokens were drawn already, in an earlier call with this seed."""
        self._processors = options.processors()
        self._draws = options.temperature is not None
        self._seed = seed
        self._drawn = drawn
        self._generator: torch.Generator | None = None

    def choose(self, ids: list[int], logits: Tensor) -> int:
        """The next token.

        Args:
            ids: the sequence so far.
            logits: `[vocab]`, of its last position.

        Raises:
            OverflowedError: one of them is no number or infinite.
        """
        scores = logits.float()[None]
        if not math.isfinite(float(scores.max())):  # NaN if any is
            raise OverflowedError(len(ids))
        if self._processors:
            before = cast(torch.LongTensor, torch.tensor([ids], device=logits.device))
            scores = self._processors(before, cast(torch.FloatTensor, scores))
        if not self._draws:
            return int(scores.argmax(dim=-1))
        probs = scores.softmax(dim=-1)
        if self._generator is None:
            self._generator = torch.Generator(logits.device).manual_seed(self._seed)
            for _ in range(self._drawn):  # a draw takes as much from it whatever the probabilities
                self._draw(torch.ones_like(probs), self._generator)
        return self._draw(probs, self._generator)

    @staticmethod
    def _draw(probs: Tensor, generator: torch.Generator) -> int:
        return int(torch.multinomial(probs, num_samples=1, generator=generator))
