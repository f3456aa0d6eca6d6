"""Whether the tensors that were saved of a bank's routers are the ones that they need."""

from collections.abc import Mapping

from torch import Tensor

from lmoe_studio.errors import BankError
from lmoe_studio.routing.registry import router_class
from lmoe_studio.routing.settings import RouterSettings


def check_state(
    settings: RouterSettings,
    state: Mapping[str, Tensor],
    *,
    experts: int,
    widths: Mapping[str, int | None],
    source: str,
) -> None:
    """Refuse saved tensors of which one is missing, left over, or of another shape.

    Args:
        settings: of the routers.
        state: the tensors, "<place>.<name>".
        experts: how many there are.
        widths: each place where a router decides, and the width that it reads; None where the base
            model would have to say it.
        source: what the tensors are of, for the message.

    Raises:
        BankError: names the tensor.
        ConfigError: there is no such kind of router.
    """
    kind = router_class(settings.kind)
    expected = {
        f"{place}.{name}": shape
        for place, width in widths.items()
        for name, shape in kind.all_shapes(settings, experts, width).items()
    }
    for name, shape in expected.items():
        if name not in state:
            raise BankError(
                f"{source}: the {settings.kind} router's tensor '{name}' is missing; copy the bank "
                "again, or train its router."
            )
        came = tuple(state[name].shape)
        fits = [one in (None, other) for one, other in zip(shape, came, strict=False)]
        if len(came) != len(shape) or not all(fits):
            wanted = " × ".join("any" if n is None else str(n) for n in shape)
            raise BankError(
                f"{source}: tensor '{name}' has shape {' × '.join(map(str, came))} where {wanted} "
                "was expected; take the router of this bank and base model."
            )
    extra = next((name for name in state if name not in expected), None)
    if extra is not None:
        raise BankError(
            f"{source}: there is a tensor {extra[:200]!r} that a {settings.kind} router of these "
            "experts does not have; take the router of this bank and base model."
        )
