"""Plans as people give them: one override, a list of them, what a plan file holds, or a plan."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lmoe_studio.errors import PlanError, kind_of
from lmoe_studio.routing.plan import Override, RoutingPlan

PlanLike = RoutingPlan | Override | Iterable[Override | Mapping[str, Any]] | Mapping[str, Any]
"""What every verb takes for a plan."""
PlanSource = PlanLike | Callable[[], PlanLike | None] | None
"""A plan, or what gives the plan in force, asked before every step."""
PlansLike = RoutingPlan | Override | Mapping[str, Any] | Iterable[PlanLike | None] | None
"""One plan for every row of a batch, or one a row."""

_EXPECTED = "expected a RoutingPlan, an Override, a list of overrides, or what a plan file holds"


def as_plan(given: object, *, source: str = "The plan") -> RoutingPlan | None:
    """The plan that is meant; None for none.

    Raises:
        PlanError: it is something else, or not sound; names `source`.
    """
    match given:
        case None | RoutingPlan():
            return given
        case Override():
            return RoutingPlan([given])
        case Mapping() if "operation" in given:
            return RoutingPlan([Override.parse(dict(given), source=source)])
        case Mapping():
            return RoutingPlan.parse(dict(given), source=source)
        case str() | bytes():
            raise PlanError(
                f"{source} is {kind_of(given)}; {_EXPECTED}, which RoutingPlan.from_json reads."
            )
        case Iterable():
            return RoutingPlan.parse({"overrides": tuple(given)}, source=source)
        case _:
            raise PlanError(f"{source} is {kind_of(given)}; {_EXPECTED}.")


def as_plans(given: PlansLike, rows: int, *, each: int = 1) -> list[RoutingPlan | None]:
    """The plan of each row of a batch.

    Args:
        given: one for all rows, or a list of one a row (not of the overrides of one plan).
        rows: of the batch.
        each: how many rows in succession share one of the list, as the beams of a text do.

    Raises:
        PlanError: one is not sound, or there is not one a row.
    """
    is_one = given is None or isinstance(given, RoutingPlan | Override | Mapping)
    if is_one or not isinstance(given, Iterable):
        return [as_plan(given)] * rows
    plans = [as_plan(one) for one in given for _ in range(each)]
    if len(plans) != rows:
        raise PlanError(
            f"{len(plans)} plans came for a batch of {rows} rows; give one plan, or one a row."
        )
    return plans


def named_plans(given: object) -> dict[str, RoutingPlan | None]:
    """Several plans by name. Raises PlanError."""
    if not isinstance(given, Mapping):
        raise PlanError(
            f"The plans are {kind_of(given)}; expected them by name, as in {{'without sql': plan}}."
        )
    return {str(name): as_plan(plan, source=f"Plan '{name}'") for name, plan in given.items()}


def as_blend(given: object) -> dict[str, float] | RoutingPlan:
    """Weights by expert, or a plan that is to fix them all. Raises PlanError."""
    given = getattr(given, "to_dict", lambda: given)()  # pandas
    if isinstance(given, Mapping) and not {"operation", "overrides"} & given.keys():
        return dict(given)
    plan = as_plan(given, source="The blend")
    if plan is None:
        raise PlanError("The blend is None; give a weight by expert, or a plan.")
    return plan
