"""Hold a plan against a bank and a run: every PlanError about what does not fit comes from here."""

from collections.abc import Iterator

from lmoe_studio.errors import PlanError, did_you_mean
from lmoe_studio.routing.plan import Override, RoutingPlan, Span, Steps


def check_plan(
    plan: RoutingPlan,
    *,
    experts: tuple[str, ...],
    num_layers: int,
    length: int | None = None,
    new_tokens: int | None = None,
) -> None:
    """Refuse a plan that asks for what is not there.

    Args:
        plan: what a person asks for.
        experts: the bank's expert names.
        num_layers: decoder blocks of the model.
        length: tokens of the run, new ones included; None if not known.
        new_tokens: how many of them may be new; None if not known.

    Raises:
        PlanError: an unknown expert or layer, or positions or steps that the run does not have;
            names the override by its number and operation.
    """
    for number, override in enumerate(plan.overrides, start=1):
        name = f"Override {number} ({override.operation})"
        for expert in override.weights:
            if expert not in experts:
                known = did_you_mean(expert, experts)
                raise PlanError(f"{name} names no expert of this bank: '{expert[:80]}'; {known}")
        _check_layers(override, name, num_layers)
        scope = override.tokens
        if isinstance(scope, Steps):
            _check_places(
                scope.steps, new_tokens, f"{name} holds for generated steps", "new tokens"
            )
        elif isinstance(scope, tuple | Span):
            _check_places(scope, length, f"{name} holds for positions", "tokens")


def plan_notes(
    plan: RoutingPlan, *, experts: tuple[str, ...], new_tokens: int | None = None
) -> Iterator[str]:
    """What a person should know about a sound plan.

    Args:
        plan: what a person asks for.
        experts: the bank's expert names.
        new_tokens: how many tokens the run may write; None if not known.
    """
    for number, override in enumerate(plan.overrides, start=1):
        name = f"Override {number} ({override.operation})"
        if override.strength == 0:
            yield f"{name} has strength 0 and changes nothing."
        elif override.operation == "ban" and set(override.weights) == set(experts):
            yield f"{name} bans every expert: its tokens get the base model."
        elif override.operation == "top_k" and (override.value or 0) >= len(experts):
            yield f"{name} keeps all {len(experts)} experts and changes nothing."
        elif not new_tokens and (override.tokens == "generated" or type(override.tokens) is Steps):
            yield (
                f"{name} holds for generated tokens only: where none are written, as in a trace, it "
                "changes nothing."
            )


def _check_layers(override: Override, name: str, num_layers: int) -> None:
    match override.layers:
        case Span(start=start, stop=stop) if max(start + 1, stop or 0) > num_layers:
            layer = max(start, num_layers)
        case tuple(layers) if max(layers) >= num_layers:
            layer = next(layer for layer in layers if layer >= num_layers)
        case _:
            return
    raise PlanError(f"{name} names layer {layer}; this model has layers 0 to {num_layers - 1}.")


def _check_places(
    places: tuple[int, ...] | Span, count: int | None, what: str, tokens: str
) -> None:
    first = places.start if isinstance(places, Span) else min(places, default=0)
    if count is not None and first >= count:
        raise PlanError(
            f"{what} from {first:,} on, which this run of {count:,} {tokens} never has."
        )
