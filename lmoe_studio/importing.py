"""Adapters that somebody has become a bank that routes at once: `lmoe import`, and the page's form."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmoe_studio.base_models import BaseModel, Progress, load_base, silent
from lmoe_studio.config import EMBEDDED_BASE
from lmoe_studio.errors import AdapterError, BaseModelError, LMoEError
from lmoe_studio.experts.bank import Expert, ExpertBank, read_expert
from lmoe_studio.experts.files import save_bank
from lmoe_studio.experts.formats.folders import find_adapters
from lmoe_studio.proof import Proof
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.whole import require_free


@dataclass(frozen=True)
class Imported:
    """What became of some adapters."""

    bank: ExpertBank | None
    """None where none was taken: nothing is written then."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why each of the others is no expert of this base model, by the name it was to have."""
    notes: tuple[str, ...] = ()
    """What was read otherwise than it stands in the files, or is worth a look, a sentence each."""


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
    remember: Callable[[BaseModel, ExpertBank], ExpertBank] | None = None,
    leave_out: Collection[str] = (),
    leave_out_refused: bool = False,
    beside: BaseModel | None = None,
    on_progress: Progress = silent,
    should_stop: Callable[[], bool] = lambda: False,
) -> Imported | None:
    """Write a bank of LoRA adapters of one base model, once it has proved itself on it.

    Args:
        adapters: the folder or file of each expert by the name it is to have, in any of the formats
            of `experts/formats`; an X-LoRA becomes several experts, `name-0`, `name-1`, ….
        out: the bank's folder, whose name is the bank's; must not exist.
        base: the base model that the adapters belong to.
        router: None takes `import_router()`.
        remember: gives the bank the tensors of a router that is made of examples
            (`training.memory.build_memory`).
        leave_out: names of layers, or of what they lie in, whose part of the adapters is passed
            over: "lm_head", "experts".
        leave_out_refused: make the bank of those that fit, and say why the others do not.
        beside: a base model that is loaded already, used if it is the one that is wanted.
        on_progress: hears each step.
        should_stop: asked before each step; nothing is written then, and the answer is None.

    Raises:
        StorageError: the folder exists or cannot be written.
        BaseModelError: the base model cannot be had, or not be routed without a fault.
        AdapterError: an adapter does not fit or comes out otherwise than with PEFT, and is not to
            be left out.
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
        proof = Proof.of(model.model)
        experts, refused, notes = list[Expert](), dict[str, str](), list[str]()
        for name, place, read in _tried(adapters, model, proof, leave_out, step, notes):
            if isinstance(read, Expert):
                experts.append(read)
            elif leave_out_refused:
                refused[name] = str(read)
            else:
                raise AdapterError(f"Expert '{name}' ({place}): {read}")
        notes += _base_notes(experts, base)
        if not experts:
            return Imported(None, refused, tuple(notes))
        settings = router or import_router()
        bank = ExpertBank(out.name, model.identity, tuple(experts), settings)
        if remember is not None:
            step("Reading the examples")
            bank = remember(model, bank)
        step("Trying the bank")
        proof.of_bank(bank)
        step("Writing the bank")
        save_bank(bank, out)
    except _Stopped:
        return None
    return Imported(bank, refused, tuple(notes))


def _tried(
    adapters: Mapping[str, Path | str],
    base: BaseModel,
    proof: Proof,
    leave_out: Collection[str],
    step: Progress,
    notes: list[str],
) -> Iterator[tuple[str, Path, Expert | LMoEError]]:
    """Each adapter's name, its place, and the expert that it is or why it is none."""
    for given_name, given in adapters.items():
        step(f"Reading {given_name}")
        try:
            found = find_adapters(given_name, Path(given))
        except AdapterError as error:
            yield given_name, Path(given), error
            continue
        notes += (f"{given_name}: {note}" for note in found.notes)
        for name, place in found.places.items():
            try:
                expert = read_expert(
                    name, place, base.identity, leave_out=leave_out, tell=notes.append
                )
                step(f"Comparing {name} with PEFT")
                proof.of_expert(expert, base.identity)
            except (AdapterError, BaseModelError) as error:
                yield name, place, error
            else:
                yield name, place, expert


def _base_notes(experts: Sequence[Expert], base: str) -> Iterator[str]:
    """What the adapters call their base, where it is another name: often only another spelling."""
    named = dict[str, list[str]]()
    for expert in experts:
        if expert.adapter.base and expert.adapter.base != base:
            named.setdefault(expert.adapter.base, []).append(expert.name)
    for other, names in named.items():
        yield (
            f"{', '.join(names)}: made for '{other}' by its own word, and used on '{base}' here; the "
            "shapes fit, the weights may still be others"
        )
