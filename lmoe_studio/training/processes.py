"""The processes that train together, as `accelerate launch` or `torchrun` has started them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """How many there are, and which one this is."""

    count: int = 1
    rank: int = 0
    local_rank: int = 0

    @classmethod
    def here(cls) -> "Processes":
        """From the environment; one process where nothing is said there."""
        names = ("WORLD_SIZE", "RANK", "LOCAL_RANK")
        count, rank, local_rank = (int(os.environ.get(name, "0")) for name in names)
        return cls(max(1, count), rank, local_rank)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def device(self, asked: str) -> str:
        """The device of this process: each has a GPU of its own."""
        if self.count > 1 and asked in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{self.local_rank}"
        return asked

    def main_first(self, work: Callable[[], Any], device: str) -> Any:
        """Do work in the main process, then in the others, which may find it done."""
        if self.count == 1:
            return work()
        with PartialState(cpu=device == "cpu").main_process_first():
            return work()

    def wait(self) -> None:
        """For all to come here."""
        if self.count > 1:
            dist.barrier()

    def sum(self, values: Tensor) -> Tensor:
        """Sum over processes, without gradient."""
        if self.count > 1:
            values = values.detach().clone()
            dist.all_reduce(values)
        return values

    def agree(self, decided: bool, device: torch.device) -> bool:
        """What the main process has decided."""
        if self.count == 1:
            return decided
        flag = torch.tensor(float(decided and self.is_main), device=device)
        return bool(self.sum(flag) > 0)
