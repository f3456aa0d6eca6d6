"""What a browser asks to import, checked: files only from where they may be taken."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmoe_studio.config import EMBEDDED_BASE
from lmoe_studio.errors import ConfigError, DataError
from lmoe_studio.training.config import EXPERT_NAME
from lmoe_studio.ui.clean_text import clean, typed
from lmoe_studio.ui.training.form import Known, checked_base
from lmoe_studio.ui.training.texts import Places

MOST_ADAPTERS = 32
PARTS = ("adapter_config.json", "adapter_model.safetensors")
PICKLE = "adapter_model.bin"
"""Never read: that it was there is all that is said of it."""


@dataclass(frozen=True)
class GivenAdapter:
    """An adapter, or an archive that may hold several, and the name that its expert is to have."""

    name: str
    files: Mapping[str, Path] = field(default_factory=dict)
    """Uploaded files, by what they are called; a zip, or the parts of one adapter."""
    others: tuple[str, ...] = ()
    """Files that were there too, and were not uploaded."""
    folder: Path | None = None
    """Its folder in the operator's folder, where it was not uploaded."""


@dataclass(frozen=True)
class AskedImport:
    """A bank to be made of adapters."""

    bank: str
    base: str
    router: str
    top_k: int | None
    adapters: tuple[GivenAdapter, ...]


def read_asked(said: object, places: Places, known: Known) -> AskedImport:
    """What the form says.

    Raises:
        ConfigError: the bank's name, the base model or an option cannot be.
        DataError: there is no adapter, or an expert's name cannot be; names which.
    """
    said = said if isinstance(said, dict) else {}
    rows = [row for row in _list(said.get("rows")) if isinstance(row, dict)]
    if not rows:
        raise DataError("There is no adapter yet; drop a folder or a .zip file with one.")
    if len(rows) > MOST_ADAPTERS:
        raise DataError(f"{len(rows)} adapters came, and a page imports at most {MOST_ADAPTERS}.")
    adapters = tuple(_adapter(row, number, places) for number, row in enumerate(rows, start=1))
    name, count = Counter(adapter.name for adapter in adapters).most_common(1)[0]
    if count > 1:
        raise DataError(f"Two experts are named '{name}'; give each a name of its own.")
    bank = _named(said.get("bank"), "The bank's name")
    if bank in known.banks:
        raise ConfigError(f"There is a bank '{bank}' already; give this one another name.")
    return AskedImport(
        bank=bank,
        base=checked_base(typed(said.get("base")).strip() or EMBEDDED_BASE, places, known),
        router=typed(said.get("router")) or "arrow",
        top_k=_whole(said.get("top_k")),
        adapters=adapters,
    )


def _adapter(row: dict[str, Any], number: int, places: Places) -> GivenAdapter:
    name = _named(row.get("name"), f"Adapter {number}")
    if place := typed(row.get("place")):
        folder = places.folder(place)
        if folder is None:
            shown = clean(place[:120])
            raise DataError(f"Adapter '{name}': '{shown}' is no folder in the operator's folder.")
        return GivenAdapter(name, folder=folder)
    files, others = dict[str, Path](), list[str]()
    for sent in _list(row.get("files")):
        called = typed(sent.get("name")) if isinstance(sent, dict) else ""
        if called == PICKLE:
            others.append(called)
        elif called in PARTS or called.lower().endswith(".zip"):
            who, suffixes = f"Adapter '{name}'", (".zip", ".json", ".safetensors")
            files[called] = places.uploaded(sent.get("path"), who, suffixes)
    if not (files or others):
        raise DataError(f"Adapter '{name}' has no files; upload them, or remove it.")
    return GivenAdapter(name, files, tuple(others))


def _named(value: object, what: str) -> str:
    name = typed(value).strip()
    if not re.match(EXPERT_NAME, name):
        raise ConfigError(
            f"{what}: '{clean(name[:80])}' is no name; begin with a letter or a digit and go on with "
            "letters, digits, _ . + or -, at most 80."
        )
    return name


def _whole(value: object) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ConfigError("Experts a token: expected a whole number, or nothing.")
    return int(value)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
