"""A blend that is in the base model's weights for the time being, and what cannot be done meanwhile."""

from dataclasses import dataclass
from threading import get_ident

from jaxtyping import Float
from torch import Tensor

from lmoe_studio.errors import PlanError
from lmoe_studio.routing.plan import RoutingPlan

FOLDED = (
    "A blend is folded into the base model's weights, which no plan can change; unfold it first, "
    "or leave the plan out."
)


@dataclass(frozen=True)
class FoldedBlend:
    """See `folding.py`."""

    plan: RoutingPlan
    weights: Float[Tensor, "site expert"]
    thread: int | None = None
    """The one thread whose calls may run on it; None for all."""

    def refuse_others(self) -> None:
        """Raise PlanError in a thread that did not ask for it."""
        if self.thread not in (None, get_ident()):
            raise PlanError(
                "Another thread has folded a blend into the base model's weights; wait until it is "
                "unfolded, or let it be folded with everywhere=True, for the calls of all threads."
            )

    def refuse(self, *, steered: bool, contributions: bool) -> None:
        """Raise PlanError where a pass asks for what the folded weights cannot give."""
        if steered:
            raise PlanError(FOLDED)
        if contributions:
            raise PlanError(
                "A blend is folded into the base model's weights, where what each expert added "
                "cannot be told apart; unfold it first, or leave contributions out."
            )
