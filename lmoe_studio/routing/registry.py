"""The kinds of router there are, by name. A new kind is a file beside this one and a line here."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from lmoe_studio.config import explain
from lmoe_studio.errors import ConfigError, did_you_mean

ROUTERS: dict[str, str | type[Any]] = {
    "linear": "lmoe_studio.routing.linear:LinearRouter",
    "uniform": "lmoe_studio.routing.fixed:UniformRouter",
    "blend": "lmoe_studio.routing.fixed:BlendRouter",
    "arrow": "lmoe_studio.routing.arrow:ArrowRouter",
    "mlp": "lmoe_studio.routing.mlp:MLPRouter",
    "typed": "lmoe_studio.routing.typed:TypedRouter",
    "tree": "lmoe_studio.routing.tree:TreeRouter",
    "pre": "lmoe_studio.routing.pre:PreRouter",
    "knn": "lmoe_studio.routing.knn:KnnRouter",
}
"""The subclass of Router, or where it is: settings are read where there is no torch."""


def router_class(kind: str) -> type[Any]:
    """The subclass of Router that is meant. Raises ConfigError with the kinds there are."""
    found = ROUTERS.get(kind)
    if found is None:
        known = did_you_mean(kind, ROUTERS)
        raise ConfigError(f"There is no router of kind '{kind}'; {known}")
    if isinstance(found, str):
        module, _, name = found.partition(":")
        found = getattr(import_module(module), name)
    return found


def checked_options(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a kind, complete. Raises ConfigError where it does not take those given."""
    options = router_class(kind).Options
    try:
        return options.model_validate(given).model_dump(mode="json")
    except ValidationError as error:
        raise ConfigError(f"The {kind} router's options: {explain(options, error)}.") from None


def check_experts(kind: str, options: Mapping[str, Any], experts: tuple[str, ...]) -> None:
    """Raise ConfigError where the options of a kind do not fit these experts."""
    if options:
        found = router_class(kind)
        found.check_experts(found.Options.model_validate(options), experts)


def check_kind(settings: Any) -> None:
    """Raise ConfigError where routers of a kind cannot be as their settings say."""
    kind, scope = settings.kind, settings.scope
    found = router_class(kind)
    for name, only in found.only.items():
        if getattr(settings, name) != only:
            raise ConfigError(
                f"A router of kind '{kind}' has {name} {only or 'none'} and no other; leave it out."
            )
    if settings.learns_threshold and found.reads == "ids":
        raise ConfigError(
            f"A router of kind '{kind}' reads no hidden states, of which a threshold is learned; "
            "set learned: false."
        )
    if settings.learns_threshold and not found.learned:
        raise ConfigError(
            f"A router of kind '{kind}' learns nothing, so no threshold; set learned: false."
        )
    if scope not in found.scopes:
        scopes = " or ".join(f"'{one}'" for one in found.scopes)
        raise ConfigError(
            f"A router of kind '{kind}' {found.reading}, so its scope is {scopes}, not '{scope}'."
        )
