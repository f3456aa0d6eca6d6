"""What makes a run the run it is: its options, the content of its data, its base and its bank."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmoe_studio.base_models import BaseIdentity
from lmoe_studio.experts.places import find_bank
from lmoe_studio.text_rows import sha256
from lmoe_studio.training.config import SkillConfig, TrainingConfig
from lmoe_studio.training.kept import PARTS, paths_of

FREE = ("name", "out", "device", "keep_checkpoints")
"""Options that may differ after a resume: they do not change what is learned."""
_FORMAT = 2  # of an identity and of how texts are read: a run is ended by what began it

Digests = dict[str, dict[str, list[dict[str, str]]]]
"""By skill and part the sources in their order: `file` (folder and name) and `sha256`."""


def digests(config: TrainingConfig) -> Digests:
    """Name and sha256 of every data file, of a config that names only files and saved datasets.

    Raises:
        DataError: one cannot be read.
    """
    return {
        skill.name: {part: [_digest(path) for path in paths_of(skill, part)] for part in PARTS}
        for skill in config.skills
    }


def bank_digest(config: TrainingConfig) -> str | None:
    """Of the bank that a run starts from. Raises BankError where there is none of that name."""
    return sha256(find_bank(config.bank) / "manifest.json") if config.bank else None


def run_identity(
    config: TrainingConfig, data: Digests, base: BaseIdentity | None, processes: int
) -> dict[str, Any]:
    """Everything that changes what is learned, as plain values; two runs that differ are two runs.

    Where files lie and what they are called is left out: their content counts, its order, and what
    part of which skill it is. So does the ending of a name, which says how a file is read.
    """
    options = config.model_dump(mode="json", exclude=set(FREE))
    for skill in options["skills"]:
        del skill["train"], skill["held_out"]
    return {
        "format": _FORMAT,
        "options": options,
        "data": [_contents(data[skill.name]) for skill in config.skills],
        "base": base.fingerprint if base else None,
        "bank": bank_digest(config),
        "processes": processes,
    }


def differences(
    begun: dict[str, Any], now: dict[str, Any], config: TrainingConfig
) -> Iterator[str]:
    """In what an identity differs from that of a config, one clause each."""
    if begun.get("format") != now["format"]:
        yield "by another version of L-MoE Studio, which reads texts otherwise"
        return
    yield from _changes(begun.get("options"), now["options"])
    if len(begun["data"]) == len(config.skills):  # else the options have said so
        for skill, before, after in zip(config.skills, begun["data"], now["data"], strict=True):
            yield from _data_changes(skill, before, after)
    for name in ("base", "bank"):
        if begun[name] != now[name]:
            yield f"{name} has another content"
    if begun["processes"] != now["processes"]:
        yield f"processes was {begun['processes']}, is {now['processes']}"


def _digest(path: Path) -> dict[str, str]:
    return {"file": f"{path.parent.name}/{path.name}", "sha256": sha256(path)}


def _contents(found: dict[str, list[dict[str, str]]]) -> dict[str, list[str]]:
    return {
        part: [f"{Path(one['file']).suffix.lower()} {one['sha256']}" for one in found[part]]
        for part in PARTS
    }


def _data_changes(skill: SkillConfig, begun: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for part in PARTS:
        before, after, files = begun[part], now[part], getattr(skill, part)
        if before == after:
            continue
        if len(before) != len(after):
            yield f"{part} of skill '{skill.name}' had {len(before)} files, has {len(after)}"
        elif sorted(before) == sorted(after):
            yield f"{part} of skill '{skill.name}' has its files in another order"
        else:
            changed = (f for f, a, b in zip(files, before, after, strict=True) if a != b)
            yield from (f"{file} has another content" for file in changed)


def _changes(begun: Any, now: Any, path: str = "") -> Iterator[str]:
    if isinstance(begun, dict) and isinstance(now, dict):
        for key in sorted({*begun, *now}):
            yield from _changes(begun.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif isinstance(begun, list) and isinstance(now, list) and len(begun) == len(now):
        for number, (a, b) in enumerate(zip(begun, now, strict=True)):
            yield from _changes(a, b, f"{path}[{number}]")
    elif begun != now:
        yield f"{path} was {json.dumps(begun)}, is {json.dumps(now)}"
