"""Where routers decide, and which router that is."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel

from lmoe_studio.architecture import decoder_blocks, hidden_width
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.layer import BankLayer
from lmoe_studio.routing.registry import router_class
from lmoe_studio.routing.router import RouterSpec
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.routing.state import check_state


@dataclass(frozen=True)
class Site:
    """A place where a router decides: a decoder block, or one linear layer of it."""

    layer: int
    module: str | None = None


class Sites:
    """The sites of a bank in a base model, in order, and the key of the router that decides there."""

    def __init__(self, settings: RouterSettings, layer_of: Mapping[str, int]) -> None:
        """`layer_of`: the decoder block of each target module."""
        self.scope = settings.scope
        if self.scope == "module":
            self.all = tuple(Site(layer, name) for name, layer in layer_of.items())
        else:
            self.all = tuple(Site(layer) for layer in sorted(set(layer_of.values())))
        self._index = {site: index for index, site in enumerate(self.all)}

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the routers: one a site, or one for all."""
        if self.scope in ("shared", "tied"):
            return (self.scope,)
        return tuple(site.module or f"layers.{site.layer}" for site in self.all)

    def router_of(self, index: int) -> int:
        """Which of the routers decides at a site."""
        return 0 if self.scope in ("shared", "tied") else index

    def index(self, layer: int, module: str | None = None) -> int | None:
        """Which site that is, if it is one."""
        return self._index.get(Site(layer, module))


def build_routers(
    base: PreTrainedModel,
    bank: ExpertBank,
    layers: Mapping[str, BankLayer],
    sites: Sites,
    *,
    may_be_new: bool,
) -> nn.ModuleList:
    """The routers of a bank, in the order of their keys.

    Raises:
        BankError: the bank's tensors are not the ones that these routers need.
    """
    embeddings = next(base.get_input_embeddings().parameters())
    modules = [site.module for site in sites.all]
    places = [layers[m].lora_a if m else embeddings for m in modules]
    kind = router_class(bank.router.kind)
    if kind.reads == "ids":
        width = embeddings.shape[0]
    else:
        width = embeddings.shape[1] if sites.scope == "shared" else hidden_width(base)
        width += bank.router.layer_code
    widths = {
        key: layers[module].lora_a.shape[-1] if module else width
        for key, module in zip(sites.keys, modules, strict=False)
    }
    if bank.router_state or not may_be_new:
        check_state(
            bank.router,
            bank.router_state,
            experts=len(bank.experts),
            widths=widths,
            source=f"Bank '{bank.name}'",
        )
    num_layers = len(decoder_blocks(base)[1])
    routers = []
    for (key, width), module, place in zip(widths.items(), modules, places, strict=False):
        made = kind.prepared(_factors(bank, module), width) if module else {}
        state = _saved(bank, key) | made
        spec = RouterSpec(bank.router, bank.expert_names, width, state, num_layers)
        routers.append(kind(spec).to(place.device))
    return nn.ModuleList(routers)


def _saved(bank: ExpertBank, key: str) -> dict[str, Tensor]:
    """The tensors of one router."""
    return {
        name.removeprefix(f"{key}."): tensor
        for name, tensor in bank.router_state.items()
        if name.startswith(f"{key}.")
    }


def _factors(bank: ExpertBank, module: str) -> list[tuple[Tensor, Tensor] | None]:
    found = [expert.adapter.factors.get(module) for expert in bank.experts]
    return [(one.a, one.b) if one else None for one in found]
