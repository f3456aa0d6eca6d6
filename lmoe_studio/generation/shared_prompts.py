"""Rows that read the same prompt under the same routing read it once, and share its cache."""

from collections.abc import Sequence
from dataclasses import dataclass

from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan, Span, Steps

PASS = 1024
"""Tokens of one pass over given text, all rows together: bounds the logits' memory."""


@dataclass(frozen=True)
class PromptReadings:
    """What a batch has to read: each different reading once."""

    prompts: list[list[int]]
    plans: list[RoutingPlan | None]
    """By reading; what holds for new tokens only is left out."""
    of_row: list[int] | None
    """The reading of each row; None where each row is one of its own."""

    @classmethod
    def of(
        cls, prompts: Sequence[list[int]], plans: Sequence[RoutingPlan | None]
    ) -> "PromptReadings":
        """Find the rows, each with a prompt and a settled plan, that read alike."""
        found: dict[tuple[tuple[int, ...], str], int] = {}
        parts = list[RoutingPlan | None]()
        of_row = []
        for prompt, plan in zip(prompts, plans, strict=True):
            part = prompt_part(plan, len(prompt))
            key = tuple(prompt), part.to_json() if part else ""
            if key not in found:
                found[key] = len(found)
                parts.append(part)
            of_row.append(found[key])
        alone = len(found) == len(of_row)
        return cls([list(ids) for ids, _ in found], parts, None if alone else of_row)


def prompt_part(plan: RoutingPlan | None, length: int) -> RoutingPlan | None:
    """The overrides of a settled plan that reach a prompt of this length; None if there are none."""
    if plan is None:
        return None
    reaching = [one for one in plan.overrides if one.strength and _reaches(one, length)]
    return RoutingPlan(reaching) if reaching else None


def _reaches(override: Override, length: int) -> bool:
    match override.tokens:
        case "generated" | Steps():
            return False
        case Span(start=start):
            return start < length
        case tuple(positions):
            return any(position < length for position in positions)
        case _:
            return True


def windows(model: MixtureModel, length: int, rows: int) -> list[slice]:
    """Stretches of as many tokens of each row as one pass takes.

    Args:
        model: the routed model, which may have to read a prompt whole.
        length: of each row.
        rows: of the batch.
    """
    stride = length if model.reads_whole_prompts else max(PASS // rows, 1)
    return [slice(start, start + stride) for start in range(0, length, max(stride, 1))]
