"""Save and load a bank folder.

    bank.json            what the bank is: base, composition, router, experts in order
    router.safetensors   the router's tensors, if it has any, or a note that they are yet to be trained
    experts/<name>/      an ordinary PEFT LoRA, readable without this package
    training.json        how it was trained, if it was
    manifest.json        sha256 of every other file; what it does not list is not read
    README.md            the model card, if there is one

A folder is written beside its place and renamed into it, so it is there whole or not at all.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator
from safetensors.torch import save_file

from lmoe_studio.base_models import BaseIdentity
from lmoe_studio.config import Composition, Config
from lmoe_studio.errors import BankError, StorageError
from lmoe_studio.experts.adapter import write_adapter
from lmoe_studio.experts.bank import Expert, ExpertBank
from lmoe_studio.experts.bank_folder import CARD, MANIFEST, BankFolder, read_text
from lmoe_studio.experts.card import plain_card
from lmoe_studio.experts.hub_cache import fetched
from lmoe_studio.experts.places import find_bank, is_local
from lmoe_studio.routing.registry import router_class
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.routing.state import check_state
from lmoe_studio.staging import staging_in
from lmoe_studio.weight_sample import is_sample
from lmoe_studio.whole import whole_folder

ROUTER = "router.safetensors"
_UNTRAINED = {"routers": "untrained"}
"""What its file says where a learned router has no tensors yet: it is not lost."""

_NAME = re.compile(r"[\w][\w.+-]{0,79}")


def _folder_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("an expert's name is its folder's: letters, digits, '.', '_', '-'")
    return name


def _model_name(name: str) -> str:
    if not name.isprintable() or not 0 < len(name) <= 1000:
        raise ValueError("expected the name of a model")
    return name


def _weight_sample(text: str) -> str:
    if not is_sample(text):
        raise ValueError("expected a sample of the base model's weights, as lmoe writes it")
    return text


class _ExpertEntry(Config):
    name: Annotated[str, AfterValidator(_folder_name)]
    description: str = ""
    tags: tuple[str, ...] = ()


class _BaseEntry(Config):
    id: Annotated[str, AfterValidator(_model_name)]
    fingerprint: str
    weights: Annotated[str, AfterValidator(_weight_sample)] | None = None


class _BankFile(Config):
    """bank.json."""

    schema_version: Literal[1] = 1
    name: str
    base: _BaseEntry
    composition: Composition = "output"
    router: RouterSettings = RouterSettings()
    experts: tuple[_ExpertEntry, ...]


def save_bank(
    bank: ExpertBank,
    folder: Path | str,
    *,
    dtype: torch.dtype | None = None,
    card: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a bank folder.

    Args:
        bank: what to write.
        folder: its place; must not exist unless `overwrite`.
        dtype: of the experts' tensors; None writes them as they are. Routers stay float32.
        card: text of its README.md.
        overwrite: replace a folder that is there.

    Raises:
        StorageError: the folder exists, or cannot be written.
        BankError: an expert's name cannot be a folder's name.
    """
    folder = Path(folder)
    for name in bank.expert_names:
        if not _NAME.fullmatch(name):
            raise BankError(
                f"Expert name '{name[:80]}' cannot be a folder; use letters, digits, '.', '_', '-'."
            )
    try:
        with whole_folder(folder, overwrite=overwrite) as staged:
            _write(bank, staged, dtype, card)
    except OSError as error:
        raise StorageError(
            f"The bank could not be written to {folder}: {error.strerror or error}."
        ) from None
    return folder


def write_bank_into(bank: ExpertBank, folder: Path, *, card: str | None = None) -> None:
    """Write a bank with a card into a folder that may hold other files, which stay.

    Args:
        bank: what to write.
        folder: its place; made where it is not.
        card: text of its README.md; None makes a plain one.

    Raises:
        StorageError: it cannot be written.
        BankError: an expert's name cannot be a folder's name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with staging_in(folder) as staging:
            staged = save_bank(bank, staging / "bank", card=card or plain_card(bank))
            (folder / MANIFEST).unlink(missing_ok=True)  # what is half written is no bank
            for name in sorted(path.name for path in staged.iterdir() if path.name != MANIFEST):
                if (folder / name).is_dir():
                    shutil.rmtree(folder / name)
                (staged / name).replace(folder / name)
            (staged / MANIFEST).replace(folder / MANIFEST)
    except OSError as error:
        raise StorageError(
            f"The bank could not be written to {folder}: {error.strerror or error}."
        ) from None


def load_bank(bank: str | Path, *, revision: str | None = None) -> ExpertBank:
    """Load a bank by its name, its folder or its id on the hub; it may come from a stranger.

    No base is needed: whether the bank fits one is seen where it is attached.

    Args:
        bank: which; `user/name` is looked for on the Hugging Face hub unless there is such a folder.
        revision: branch, tag or commit on the hub.

    Raises:
        HubError: it cannot be had from the hub.
        BankError: there is no such bank, or a file of it is missing, changed, not listed in its
            manifest, or not what such a file can be; or the router's tensors are not those of its
            kind.
        AdapterError: an expert's files are not a sound LoRA.
        ConfigError: bank.json says something that no bank can.
    """
    folder = find_bank(bank) if is_local(bank) else fetched(str(bank), revision)
    files = BankFolder(folder)
    entry = _BankFile.parse(files.json("bank.json"), source=str(folder / "bank.json"))
    experts = tuple(
        Expert(item.name, files.adapter(f"experts/{item.name}"), item.description, item.tags)
        for item in entry.experts
    )
    state, said = files.tensors(ROUTER) if files.has(ROUTER) else ({}, None)
    loaded = ExpertBank(
        name=entry.name,
        base=BaseIdentity(entry.base.id, entry.base.fingerprint, weights=entry.base.weights),
        experts=experts,
        router=entry.router,
        router_state=state,
        composition=entry.composition,
        training=files.json("training.json") if files.has("training.json") else None,
    )
    if state or said != _UNTRAINED:
        check_state(
            loaded.router,
            state,
            experts=len(experts),
            widths=_router_widths(loaded),
            source=f"{folder}, {ROUTER}",
        )
    return loaded


def read_card(bank: str | Path) -> str | None:
    """The model card of a bank, if it has one. Raises BankError where it is no ordinary file."""
    return read_text(find_bank(bank), CARD)


def _router_widths(bank: ExpertBank) -> dict[str, int | None]:
    """Where routers are saved, and the width that each reads, as far as the experts say it."""
    if bank.router.scope in ("shared", "tied"):
        return {bank.router.scope: None}
    if bank.router.scope == "layer":
        numbers = [next((p for p in m.split(".") if p.isdigit()), None) for m in bank.modules]
        return {f"layers.{number}": None for number in numbers if number is not None}
    return {
        module: next(
            e.adapter.factors[module].d_in for e in bank.experts if module in e.adapter.factors
        )
        for module in bank.modules
    }


def _write(bank: ExpertBank, folder: Path, dtype: torch.dtype | None, card: str | None) -> None:
    entry = _BankFile(
        name=bank.name,
        base=_BaseEntry(
            id=bank.base.id, fingerprint=bank.base.fingerprint, weights=bank.base.weights
        ),
        composition=bank.composition,
        router=bank.router,
        experts=tuple(
            _ExpertEntry(name=e.name, description=e.description, tags=e.tags) for e in bank.experts
        ),
    )
    entry.write(folder / "bank.json")
    for expert in bank.experts:
        write_adapter(
            expert.adapter, folder / "experts" / expert.name, base=bank.base.id, dtype=dtype
        )
    if bank.router_state:
        state = {n: tensor.float().contiguous() for n, tensor in bank.router_state.items()}
        save_file(state, folder / ROUTER)
    elif router_class(bank.router.kind).learned:
        save_file({}, folder / ROUTER, _UNTRAINED)
    if bank.training is not None:
        text = json.dumps(bank.training, indent=2, ensure_ascii=False)
        (folder / "training.json").write_text(text + "\n", encoding="utf-8")
    if card is not None:
        (folder / CARD).write_text(card, encoding="utf-8")
    manifest = {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder)}
    text = json.dumps(manifest, indent=2, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
