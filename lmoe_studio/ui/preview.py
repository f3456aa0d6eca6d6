"""What the page is told when it asks what a plan would make of a text that is kept here."""

from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from lmoe_studio.ui.payload import ShownWeights, shown_weights
from lmoe_studio.ui.plan_form import read_overrides
from lmoe_studio.ui.problems import explain
from lmoe_studio.ui.traces import TraceStore

if TYPE_CHECKING:
    from lmoe_studio.studio import Studio

_GONE = "The Studio has let go of this text; generate it again."
_NO_STUDIO = "No bank is loaded."


class PlanPreview(TypedDict):
    """The answer to one question: weights, or why there are none."""

    id: str
    serial: int
    """The page's number of the question."""
    shown: NotRequired[ShownWeights]
    problem: NotRequired[str]


def preview_plan(
    asked: object, traces: TraceStore, studio: "Studio | None", *, user: str
) -> PlanPreview:
    """Answer a question `{id, serial, overrides}`, which a browser made and so may be anything."""
    question: dict[Any, Any] = asked if isinstance(asked, dict) else {}
    key, serial = question.get("id"), question.get("serial")
    answer: PlanPreview = {
        "id": key if isinstance(key, str) else "",
        "serial": serial if type(serial) is int else 0,
    }
    trace = traces.get(user, key)
    if trace is None or studio is None:
        return {**answer, "problem": _GONE if trace is None else _NO_STUDIO}
    try:
        plan = read_overrides(question.get("overrides"))
        weights = studio.preview(trace, plan)
    except Exception as error:
        return {**answer, "problem": explain(error)[1]}
    return {**answer, "shown": shown_weights(trace, weights, weights != trace.router_weights)}
