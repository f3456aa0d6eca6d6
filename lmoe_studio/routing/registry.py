"""The kinds of router there are, by name. A new kind is a file beside this one and a line here."""

from lmoe_studio.config import RouterSettings
from lmoe_studio.errors import ConfigError, did_you_mean
from lmoe_studio.routing.arrow import ArrowRouter
from lmoe_studio.routing.fixed import BlendRouter, UniformRouter
from lmoe_studio.routing.linear import LinearRouter
from lmoe_studio.routing.router import Router

ROUTERS: dict[str, type[Router]] = {
    "linear": LinearRouter,
    "uniform": UniformRouter,
    "blend": BlendRouter,
    "arrow": ArrowRouter,
}


def router_class(settings: RouterSettings) -> type[Router]:
    """The class of a kind. Raises ConfigError with the kinds there are."""
    if settings.kind not in ROUTERS:
        known = did_you_mean(settings.kind, ROUTERS)
        raise ConfigError(f"There is no router of kind '{settings.kind}'; {known}")
    if settings.kind == "arrow" and settings.scope != "module":
        raise ConfigError(
            f"The arrow router compares each linear layer's input with its experts, so its scope "
            f"is 'module', not '{settings.scope}'."
        )
    return ROUTERS[settings.kind]
