"""Between the composer's value, which a browser made, and a RoutingPlan."""

import json
from dataclasses import dataclass
from typing import Any

from lmoe_studio.errors import PlanError
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.ui.clean_text import clean

MOST_CHARACTERS = 200_000
"""Of a plan as JSON."""
_MOST_SIGNATURE, _MOST_PROBLEM = 40, 300


@dataclass(frozen=True)
class PlanForm:
    """What a composer holds."""

    plan: RoutingPlan
    signature: str
    """The composer's name for the plan; it knows a text's plan again by it."""


def read_form(value: object, *, bank: str | None = None) -> PlanForm:
    """What a browser says its composer holds, to be used with the bank of that name.

    Raises:
        PlanError: nothing has come, so that a plan might be passed over; the plan is not sound, is
            for another bank, or something typed in it cannot be read.
    """
    if not isinstance(value, dict):
        raise PlanError("The plan did not arrive whole; reload the page and try again.")
    problem = value.get("problem")
    if isinstance(problem, str) and problem:
        raise PlanError(clean(problem[:_MOST_PROBLEM]))
    plan = read_overrides(value.get("overrides", []))
    if plan:
        _check_bank(value, bank)
    signature = value.get("signature")
    return PlanForm(plan, clean(signature[:_MOST_SIGNATURE]) if isinstance(signature, str) else "")


def _check_bank(value: dict[Any, Any], bank: str | None) -> None:
    """Whether what a browser sent was made while the bank of that name was loaded."""
    made_for = value.get("bank")
    if bank is None or made_for == clean(bank):
        return
    other = f"'{clean(made_for[:_MOST_PROBLEM])}'" if isinstance(made_for, str) else "another bank"
    raise PlanError(
        f"This plan was made for {other}, and '{clean(bank)}' has been loaded since; look at the plan "
        "again, then try once more."
    )


def read_overrides(overrides: object, *, source: str = "The plan") -> RoutingPlan:
    """A list of overrides as plain data. Raises PlanError for one that is not sound."""
    if not isinstance(overrides, list):
        raise PlanError(f"{source}: expected a list of overrides.")
    return RoutingPlan.parse({"overrides": overrides}, source=source)


def plan_overrides(plan: RoutingPlan) -> list[dict[str, Any]]:
    """The overrides of a plan as plain data, each with what is not at its default."""
    dumped = [one.model_dump(mode="json", exclude_defaults=True) for one in plan.overrides]
    return json.loads(clean(json.dumps(dumped, ensure_ascii=False)))


def plan_text(plan: RoutingPlan) -> str:
    """A plan as JSON for people: as `RoutingPlan.to_json`, an override a line."""
    lines = [f"    {json.dumps(one, ensure_ascii=False)}" for one in plan_overrides(plan)]
    body = "[\n" + ",\n".join(lines) + "\n  ]" if lines else "[]"
    return f'{{\n  "version": {plan.version},\n  "overrides": {body}\n}}'


def read_plan_text(text: str, *, source: str = "The plan") -> RoutingPlan:
    """A plan that someone pasted. Raises PlanError for one that is not sound."""
    if not text.strip():
        raise PlanError(f"{source}: there is none in the field; paste one as JSON.")
    if len(text) > MOST_CHARACTERS:
        raise PlanError(
            f"{source} has {len(text):,} characters, and at most {MOST_CHARACTERS:,} are read."
        )
    return RoutingPlan.from_json(text, source=source)


def read_picks(value: object, *, bank: str | None = None) -> tuple[RoutingPlan, RoutingPlan]:
    """Plan A and plan B as a browser picked them, for the bank of that name.

    Raises:
        PlanError: nothing has come; one of them is not sound, or is for another bank.
    """
    if not isinstance(value, dict):
        raise PlanError("The two plans did not arrive whole; reload the page and try again.")
    plans = _read_pick(value.get("a"), "Plan A"), _read_pick(value.get("b"), "Plan B")
    if any(plans):
        _check_bank(value, bank)
    return plans


def _read_pick(pick: object, name: str) -> RoutingPlan:
    if pick is None:
        return RoutingPlan()
    if isinstance(pick, dict) and isinstance(pick.get("json"), str):
        return read_plan_text(pick["json"], source=name)
    return read_overrides(
        pick.get("overrides", []) if isinstance(pick, dict) else pick, source=name
    )
