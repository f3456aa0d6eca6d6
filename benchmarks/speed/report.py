"""What a run measured: plain data, written as JSON and read back."""

import datetime
import importlib.metadata
import platform
import re
from pathlib import Path
from typing import Literal, Self

import torch

from benchmarks.speed.measure import Spread
from lmoe_studio.config import Config
from lmoe_studio.errors import ConfigError

Unit = Literal["s", "B"]
"""Seconds or bytes."""
_PACKAGES = ("torch", "transformers", "peft")


class Figures(Config):
    """One case of one row."""

    value: Spread
    against: str
    """The case that `ratio` is to: the LoRA of the same total rank."""
    ratio: Spread
    to_base: Spread | None = None
    """The ratio to the base model, where that is a case of the row."""


class RowReport(Config):
    """One row."""

    title: str
    unit: Unit
    rounds: int
    cases: dict[str, Figures]


class Machine(Config):
    """Where and when."""

    cpu: str
    threads: int
    gpu: str | None
    versions: dict[str, str]
    date: str

    @classmethod
    def here(cls, device: str) -> Self:
        return cls(
            cpu=_cpu_name(),
            threads=torch.get_num_threads(),
            gpu=torch.cuda.get_device_name() if device == "cuda" else None,
            versions={name: importlib.metadata.version(name) for name in _PACKAGES},
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        threads = "1 thread (processor time)" if self.threads == 1 else f"{self.threads} threads"
        place = self.gpu or f"{self.cpu}, {threads}"
        return f"{place}; {versions}; {self.date}"


class Report(Config):
    """A run."""

    machine: Machine
    shape: str
    device: str
    dtype: str
    experts: int
    rank: int
    rows: dict[str, RowReport]

    def updated(self, earlier: Self) -> Self:
        """These rows, and those of an earlier run that are not among them.

        Raises:
            ConfigError: the earlier run was of something else, or on another machine.
        """
        for part in ("machine", "shape", "device", "dtype", "experts", "rank"):
            mine, theirs = getattr(self, part), getattr(earlier, part)
            if part == "machine":
                theirs = theirs.model_copy(update={"date": mine.date})
            if mine != theirs:
                raise ConfigError(
                    f"These rows are of {mine} and those written before of {theirs}; rows of one "
                    "file belong together: write another file."
                )
        return self.model_copy(update={"rows": earlier.rows | self.rows})

    def group(self, name: str) -> dict[str, RowReport]:
        """The rows of a group, by key."""
        return {key: row for key, row in self.rows.items() if key.split("/")[0] == name}


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()
