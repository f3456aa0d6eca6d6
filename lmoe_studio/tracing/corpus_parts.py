"""A run on disk: a folder for each run, a manifest of what it is, and parts that are whole.

    out/
    ├── _data/                   rows of a dataset, taken once
    └── run=NAME/
        ├── _manifest.json       bank, base, data and options; another one refuses to go on
        ├── part-00000.parquet   some texts, all their rows
        └── …

`pandas.read_parquet(out)` reads every run of the folder, with a column `run`.
"""

import json
import re
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lmoe_studio.errors import ConfigError, StorageError
from lmoe_studio.plain_data import read_json
from lmoe_studio.whole import require_name, whole_file

MANIFEST = "_manifest.json"  # readers of Parquet folders pass over names with an underscore
_KEY = b"lmoe_part"


@dataclass(frozen=True)
class PartCounts:
    """What a part, or several, hold."""

    texts: int = 0
    tokens: int = 0
    characters: int = 0
    cut: int = 0
    """Texts that were too long and so traced in part."""
    unlabelled: int = 0

    def plus(self, other: Self) -> Self:
        mine, theirs = asdict(self), asdict(other)
        return type(self)(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True)
class CorpusRun:
    """A run on disk; `pandas.read_parquet(folder)` reads it, and any others beside it."""

    folder: Path
    run: str
    texts: int
    tokens: int
    cut: int
    """Texts that were too long and so traced in part."""
    unlabelled: int
    """Texts without a label."""
    is_finished: bool
    """False where it was stopped; the same call goes on with it."""

    def frame(self, columns: list[str] | None = None) -> pd.DataFrame:
        """The routing frame of this run, with the columns `label` and `run`; see `routing_frame`.

        Texts are categories here, as a corpus repeats its tokens many times.

        Args:
            columns: read only these; a large corpus needs little memory that way.

        Raises:
            StorageError: there is no finished part, or one is damaged.
        """
        return read_run(self.folder, self.run, columns)


def read_run(folder: Path | str, run: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Read one run of a folder, as far as its parts are finished."""
    place = Path(folder) / f"run={run}"
    if not any(place.glob("part-*.parquet")):
        raise StorageError(f"{place} holds no finished part of a run.")
    wanted = None if columns is None else list(dict.fromkeys([*columns, "run"]))
    try:
        return pd.read_parquet(folder, columns=wanted, filters=[("run", "==", run)])
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StorageError(f"{place} cannot be read: {error}.") from None


def runs_in(folder: Path | str) -> list[str]:
    """Names of the runs in a folder that have a finished part; another was hardly begun."""
    places = (path.parent for path in Path(folder).glob(f"run=*/{MANIFEST}"))
    begun = (place for place in places if any(place.glob("part-*.parquet")))
    return sorted(place.name.removeprefix("run=") for place in begun)


def read_manifest(folder: Path | str, run: str) -> dict[str, Any]:
    """What a run was traced with. Raises StorageError where that cannot be read."""
    path = Path(folder) / f"run={run}" / MANIFEST
    try:
        config = read_json(path.read_bytes())
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise StorageError(f"{path} is damaged; trace into another folder.")
    return config


def open_run(out: Path, run: str | None, config: dict[str, Any]) -> Path:
    """The folder of a run that is new, or was begun with the same config.

    Raises:
        ConfigError: the name is none, or a run of another config stands there.
        StorageError: the folder cannot be used.
    """
    if run is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9._-]{0,63}", run):
        raise ConfigError(
            f"A run is named with letters, digits, '.', '_' and '-', a letter first, not {run!r}."
        )
    try:
        require_runs_only(out)
        others = runs_in(out)
        if run is None:
            same = [name for name in others if not _differences(out, name, config)]
            name = next(iter([*same, *others]), None) or _name(config)
        else:
            name = run
        folder = out / f"run={name}"
        if name in others:
            differences = _differences(out, name, config)
            if differences:
                raise ConfigError(
                    f"{folder} was traced with {'; '.join(differences)}. Give another run name to "
                    "keep both side by side, or another folder."
                )
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / MANIFEST) as staged:
            staged.write_bytes(json.dumps(config, indent=2, ensure_ascii=False).encode())
    except OSError as error:
        raise StorageError(f"{out} cannot be used: {error.strerror or error}.") from None
    return folder


def write_part(path: Path, table: pa.Table, counts: PartCounts) -> None:
    """Write a part whole or not at all."""
    metadata = {**(table.schema.metadata or {}), _KEY: json.dumps(asdict(counts)).encode()}
    try:
        with whole_file(path) as staged:
            pq.write_table(
                table.replace_schema_metadata(metadata),
                staged,
                compression="zstd",
                row_group_size=2**20,
            )
    except OSError as error:
        finished = len(list(path.parent.glob("part-*.parquet")))
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}. The {finished} finished parts "
            "stay readable; make room and start the same run again, and it goes on from there."
        ) from None


def counts_of(path: Path) -> PartCounts | None:
    """What a finished part holds; None where it is not there, or is damaged."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        return PartCounts(**read_json(metadata[_KEY]))
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
        return None


def require_runs_only(out: Path) -> None:
    """A folder of runs is read as a whole, so nothing else may stand in it.

    Raises:
        ConfigError: something does.
        StorageError: no folder can have this name.
    """
    require_name(out)
    if not out.exists():
        return
    for path in out.iterdir():
        if not path.name.startswith(("run=", "_", ".")):
            raise ConfigError(
                f"{out} holds other files ({path.name}); give a folder for runs only."
            )


def _name(config: dict[str, Any]) -> str:
    return "r" + sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:11]


def _differences(out: Path, name: str, config: dict[str, Any]) -> list[str]:
    """What a run was traced with, where that is not what is asked for now."""
    before = read_manifest(out, name)
    keys = [key for key in {**config, **before} if before.get(key) != config.get(key)]
    return [f"another {key.removesuffix('_sha256')}" if key.endswith("_sha256")
            else f"{key} {before.get(key)!r}, not {config.get(key)!r}" for key in keys]  # fmt: skip
