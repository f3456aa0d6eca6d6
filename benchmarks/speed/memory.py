"""The most memory that a process holds while it runs one case, each case in a process of its own.

On a CPU: resident memory, from Linux's /proc, which includes the interpreter and the libraries. On
a GPU: what torch has allocated there.
"""

import ctypes
import gc
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.speed.rows import rows_of
from benchmarks.speed.variants import Variants

_STATUS = Path("/proc/self/status")
_RESET_PEAK = Path("/proc/self/clear_refs"), "5"  # proc(5)


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    rest: int
    """Before the case runs for the second time: weights, and what training keeps."""
    peak: int
    """The most while it does."""

    @property
    def added(self) -> int:
        """What running takes; never less than a page."""
        return max(self.peak - self.rest, 4096)


def memory_of(shape: str, device: str, key: str, name: str) -> Memory:
    """Run one case of one row in a fresh process."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(_measure, shape, device, key, name).result()


def _measure(shape: str, device: str, key: str, name: str) -> Memory:
    row = next(row for row in rows_of(shape) if row.key == key)
    case = row.entries(Variants(shape, device))[name].build()
    case.run(case.prepare())
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        rest = torch.cuda.memory_allocated()
        case.run(case.prepare())
        torch.cuda.synchronize()
        return Memory(rest, torch.cuda.max_memory_allocated())
    _give_back_freed()
    place, reset = _RESET_PEAK
    place.write_text(reset)
    rest = _resident("VmRSS")
    case.run(case.prepare())
    return Memory(rest, _resident("VmHWM"))


def _give_back_freed() -> None:
    """What the C library keeps of freed memory would count as resident."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())
    assert found, f"{_STATUS} has no {field}"
    return int(found[1]) * 1024
