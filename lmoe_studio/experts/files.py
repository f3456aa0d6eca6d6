"""Save and load a bank folder.

    bank.json            what the bank is: base, composition, router, experts in order
    router.safetensors   the router's tensors, if it has any
    experts/<name>/      an ordinary PEFT LoRA, readable without this package
    training.json        how it was trained, if it was
    manifest.json        sha256 of every other file
    README.md            the model card, if there is one

A folder is written beside its place and renamed into it, so it is there whole or not at all.
"""

import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lmoe_studio.base_models import BaseIdentity
from lmoe_studio.config import Composition, Config, RouterSettings
from lmoe_studio.errors import BankError, StorageError
from lmoe_studio.experts.adapter import read_adapter, write_adapter
from lmoe_studio.experts.bank import Expert, ExpertBank
from lmoe_studio.experts.places import find_bank

_NAME = re.compile(r"[\w][\w.+-]{0,79}")


class _ExpertEntry(Config):
    name: str
    description: str = ""
    tags: tuple[str, ...] = ()


class _BaseEntry(Config):
    id: str
    fingerprint: str


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
    if folder.exists() and not overwrite:
        raise StorageError(f"{folder} is there already; choose another place, or remove it first.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as making:
            staged = Path(making) / "bank"
            staged.mkdir()
            _write(bank, staged, dtype, card)
            if folder.exists():
                folder.rename(Path(making) / "replaced")
            staged.rename(folder)
    except OSError as error:
        raise StorageError(
            f"The bank could not be written to {folder}: {error.strerror or error}."
        ) from None
    return folder


def load_bank(bank: str | Path) -> ExpertBank:
    """Load a bank by its name or its folder; the base is not touched.

    Raises:
        BankError: there is no such bank, or a file of it is missing or changed.
        AdapterError: an expert's files are not a sound LoRA.
    """
    folder = find_bank(bank)
    _verify(folder)
    entry = _BankFile.parse(_read_json(folder / "bank.json"), source=str(folder / "bank.json"))
    base = BaseIdentity(entry.base.id, entry.base.fingerprint)
    experts = tuple(
        Expert(
            item.name,
            read_adapter(folder / "experts" / item.name, None),
            item.description,
            item.tags,
        )
        for item in entry.experts
    )
    training = folder / "training.json"
    return ExpertBank(
        name=entry.name,
        base=base,
        experts=experts,
        router=entry.router,
        router_state=_read_router(folder / "router.safetensors"),
        composition=entry.composition,
        training=_read_json(training) if training.exists() else None,
    )


def read_card(bank: str | Path) -> str | None:
    """The model card of a bank, if it has one."""
    card = find_bank(bank) / "README.md"
    return card.read_text(encoding="utf-8") if card.is_file() else None


def _write(bank: ExpertBank, folder: Path, dtype: torch.dtype | None, card: str | None) -> None:
    entry = _BankFile(
        name=bank.name,
        base=_BaseEntry(id=bank.base.id, fingerprint=bank.base.fingerprint),
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
        state = {name: tensor.contiguous() for name, tensor in bank.router_state.items()}
        save_file(state, folder / "router.safetensors")
    if bank.training is not None:
        text = json.dumps(bank.training, indent=2, ensure_ascii=False)
        (folder / "training.json").write_text(text + "\n", encoding="utf-8")
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    manifest = {str(path.relative_to(folder)): _sha256(path) for path in _files(folder)}
    text = json.dumps(manifest, indent=2, sort_keys=True)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def _verify(folder: Path) -> None:
    """Every file of the manifest must be there and unchanged. The card may be edited freely."""
    manifest = _read_json(folder / "manifest.json")
    for name, digest in manifest.items():
        path = folder / name
        if name == "README.md":
            continue
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise BankError(f"{folder}: manifest.json names '{name}', outside the folder.")
        if not path.is_file():
            raise BankError(f"{folder} is incomplete: {name} is missing; copy the bank again.")
        if _sha256(path) != digest:
            raise BankError(f"{folder} is damaged: {name} has changed; copy the bank again.")


def _read_router(path: Path) -> dict[str, torch.Tensor]:
    if not path.exists():
        return {}
    try:
        state = load_file(path)
    except (SafetensorError, OSError):
        raise BankError(f"{path} is no readable safetensors file; copy the bank again.") from None
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise BankError(f"{path}: tensor {name} holds a value that is not finite.")
    return state


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BankError(f"{path} is missing or no JSON; copy the bank again.") from None
    if not isinstance(values, dict):
        raise BankError(f"{path} holds no JSON object; copy the bank again.")
    return values


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
