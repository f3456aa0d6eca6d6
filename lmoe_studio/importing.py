"""Adapters that somebody has become a bank that routes at once: `lmoe import`, and the page's form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lmoe_studio.base_models import BaseModel, Progress, load_base, over_same_weights, silent
from lmoe_studio.config import EMBEDDED_BASE, RouterSettings
from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.bank import Expert, ExpertBank, require_one_base
from lmoe_studio.experts.files import save_bank
from lmoe_studio.mixture import MixtureModel
from lmoe_studio.whole import require_free


@dataclass(frozen=True)
class Imported:
    """What became of some adapters."""

    bank: ExpertBank | None
    """None where none was taken: nothing is written then."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why each of the others is no expert of this base model, by the name it was to have."""


class _Stopped(Exception):
    pass


def import_router(
    kind: str = "arrow", *, temperature: float = 1.0, top_k: int | None = None
) -> RouterSettings:
    """A router that needs no training. Raises ConfigError."""
    scope = "module" if kind == "arrow" else "layer"
    options = {"kind": kind, "scope": scope, "temperature": temperature, "top_k": top_k}
    return RouterSettings.parse(options, source="router")


def import_adapters(
    adapters: Mapping[str, Path | str],
    out: Path,
    *,
    base: str = EMBEDDED_BASE,
    router: RouterSettings | None = None,
    leave_out_refused: bool = False,
    beside: BaseModel | None = None,
    on_progress: Progress = silent,
    should_stop: Callable[[], bool] = lambda: False,
) -> Imported | None:
    """Write a bank of PEFT LoRA folders of one base model.

    Args:
        adapters: the folder of each expert by the name it is to have.
        out: the bank's folder, whose name is the bank's; must not exist.
        base: the base model that the adapters belong to.
        router: None takes `import_router()`.
        leave_out_refused: make the bank of those that fit, and say why the others do not.
        beside: a base model that is loaded already, used if it is the one that is wanted.
        on_progress: hears each step.
        should_stop: asked before each step; nothing is written then, and the answer is None.

    Raises:
        StorageError: the folder exists or cannot be written.
        BaseModelError: the base model cannot be had.
        AdapterError: an adapter does not fit, and is not to be left out; or they belong to
            different base models.
        BankError, ConfigError: a name or the router is none for such a bank.
    """
    require_free(out)

    def step(what: str) -> None:
        if should_stop():
            raise _Stopped
        on_progress(what)

    try:
        step(f"Loading {base}")
        model = beside
        if model is None or model.identity.id != base:
            model = load_base(base, device="cpu", on_progress=step)
        experts, refused = list[Expert](), dict[str, str]()
        for name, folder in adapters.items():
            step(f"Reading {name}")
            try:
                experts.append(_expert(name, folder, model))
            except AdapterError as error:
                if not leave_out_refused:
                    raise AdapterError(f"Expert '{name}': {error}") from None
                refused[name] = str(error)
        if not experts:
            return Imported(None, refused)
        require_one_base(experts)
        settings = router or import_router()
        bank = ExpertBank(out.name, model.identity, tuple(experts), settings)
        step("Attaching the experts")
        MixtureModel(over_same_weights(model.model), bank)  # a router that does not fit says so
        step("Writing the bank")
        save_bank(bank, out)
    except _Stopped:
        return None
    return Imported(bank, refused)


def _expert(name: str, folder: Path | str, model: BaseModel) -> Expert:
    """One adapter, tried on the base model alone. Raises AdapterError."""
    bank = ExpertBank.from_adapters(
        {name: folder}, base=model.identity, router=import_router("uniform")
    )
    MixtureModel(over_same_weights(model.model), bank)
    return bank.experts[0]
