"""ExpertBank: named, ordered experts of one base model, with the settings of their router.

Plain data on the CPU. `attach.py` puts it beside a model, `files.py` on disk.
"""

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from lmoe_studio.base_models import BaseIdentity
from lmoe_studio.config import Composition
from lmoe_studio.errors import (
    AdapterError,
    BankError,
    BaseMismatchError,
    OtherWeightsWarning,
    did_you_mean,
)
from lmoe_studio.experts.adapter import take_adapter
from lmoe_studio.experts.adapter_places import BaseLayers
from lmoe_studio.experts.formats.folders import find_adapters
from lmoe_studio.experts.formats.registry import open_adapter
from lmoe_studio.experts.lora import LoraAdapter
from lmoe_studio.routing.registry import check_experts
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.weight_sample import same_weights


@dataclass(frozen=True)
class Expert:
    """An adapter with a place in a bank."""

    name: str
    adapter: LoraAdapter
    description: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ExpertBank:
    """The experts of one L-MoE and everything needed to route them."""

    name: str
    base: BaseIdentity
    experts: tuple[Expert, ...]
    router: RouterSettings = field(default_factory=lambda: RouterSettings())
    router_state: dict[str, Tensor] = field(default_factory=dict)
    """The router's tensors; empty for a router that has none."""
    composition: Composition = "output"
    training: dict[str, Any] | None = None
    """How the bank was trained; None for an imported one."""

    def __post_init__(self) -> None:
        if not self.experts:
            raise BankError(f"Bank '{self.name}' has no experts; it needs at least one.")
        names = self.expert_names
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise BankError(
                f"Bank '{self.name}' has two experts named {', '.join(sorted(twice))}; "
                "give each a name of its own."
            )
        check_experts(self.router.kind, self.router.options, names)

    @classmethod
    def from_adapters(
        cls,
        adapters: Mapping[str, Path | str],
        *,
        base: BaseIdentity,
        name: str = "imported",
        router: RouterSettings | None = None,
        leave_out: Collection[str] = (),
    ) -> Self:
        """Make a bank of LoRA adapters, one expert a name, or several where it is an X-LoRA.

        Args:
            adapters: the folder or file of each expert by its name; see `experts/formats`.
            base: their base model.
            name: of the bank.
            router: None takes Arrow, which needs no training.
            leave_out: names of layers, or of what they lie in, whose part of the adapters is passed
                over: "lm_head", "experts".

        Raises:
            AdapterError: a folder is no sound LoRA of this base.
        """
        experts = []
        for expert, folder in adapters.items():
            try:
                found = find_adapters(expert, Path(folder))
                experts += (
                    read_expert(own, place, base, leave_out=leave_out)
                    for own, place in found.places.items()
                )
            except AdapterError as error:
                raise AdapterError(f"Expert '{expert}' ({folder}): {error}") from None
        settings = router or RouterSettings(kind="arrow", scope="module")
        return cls(name, base, tuple(experts), settings)

    def require_base(self, base: BaseIdentity) -> None:
        """Raise BaseMismatchError unless the bank was made for a base of this architecture.

        Where it is one of other weights, there is an OtherWeightsWarning.
        """
        if base.fingerprint != self.base.fingerprint:
            raise BaseMismatchError(
                f"Bank '{self.name}' was made for {self.base.id}, and {base.id or 'this one'} is a "
                "model of another architecture; take the bank with its own base model."
            )
        if not same_weights(base.weights, self.base.weights):
            warnings.warn(
                f"Bank '{self.name}' was made on {self.base.id}, and the weights of "
                f"{base.id or 'this base model'} are others in the same shapes: its experts may do "
                "something else here than where they were trained.",
                OtherWeightsWarning,
                stacklevel=3,
            )

    @property
    def expert_names(self) -> tuple[str, ...]:
        return tuple(expert.name for expert in self.experts)

    @property
    def modules(self) -> tuple[str, ...]:
        """Paths of the linear layers that at least one expert changes, in a fixed order."""
        names = {name for expert in self.experts for name in expert.adapter.factors}
        return tuple(sorted(names, key=_natural))

    @property
    def num_parameters(self) -> int:
        experts = sum(expert.adapter.num_parameters for expert in self.experts)
        return experts + sum(tensor.numel() for tensor in self.router_state.values())

    def expert_index(self, name: str) -> int:
        """Place of an expert. Raises BankError with the names there are."""
        try:
            return self.expert_names.index(name)
        except ValueError:
            known = did_you_mean(name, self.expert_names)
            raise BankError(f"Bank '{self.name}' has no expert '{name}'; {known}") from None

    def with_router(self, router: RouterSettings, state: dict[str, Tensor] | None = None) -> Self:
        """The same experts under another router."""
        return replace(self, router=router, router_state=state or {})


def read_expert(
    name: str,
    folder: Path | str,
    base: BaseIdentity,
    *,
    leave_out: Collection[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Expert:
    """Read an adapter of any format as an expert; see `take_adapter`. Raises AdapterError."""

    def say(note: str) -> None:
        tell(f"{name}: {note}")

    source = open_adapter(Path(folder), base)
    layers = BaseLayers(base.linear_shapes, base.blocks)
    return Expert(name, take_adapter(source, layers, leave_out=leave_out, tell=say))


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in path.split(".")]
