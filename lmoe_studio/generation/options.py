"""GenerationOptions: everything that a call for text may set besides prompt and plan."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from lmoe_studio.generation.sampling import SamplingOptions


def _strings(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class GenerationOptions(SamplingOptions):
    """Shared by Python, the command line and the page, with these defaults."""

    max_new_tokens: int = Field(default=64, ge=1, description="The most tokens to write.")
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="Of the sampling; none draws one."
    )
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], BeforeValidator(_strings)
    ] = Field(default=(), max_length=16, description="Text that ends the writing; is left out.")
    chat: bool = Field(
        default=False, description="Put the prompt into the model's chat template; else raw text."
    )
    trace: bool = Field(default=True, description="Record the routing of every token.")
    alternatives: int = Field(
        default=5, ge=0, le=100, description="Likeliest tokens to note for each position."
    )
    contributions: bool = Field(
        default=False, description="Also record how much each expert added."
    )
