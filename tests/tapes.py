"""Tape: a CUDA graph for the CPU, so that what may be captured can be tested without a GPU."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ASKS_A_TENSOR = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")
BRINGS_VALUES = ("lift_fresh", "lift_fresh_copy")  # torch.tensor([...]): a copy from the host


class NotCapturable(RuntimeError):
    """The operation needs the host."""


class Tape(TorchDispatchMode):
    """Notes every operation and the tensors it worked on; replays them on the same memory.

    Like a graph: capturing leaves no trace in tensors that were there before, the host is not asked
    again, and results appear where they were at capture.
    """

    captures = replays = 0
    """Of all tapes."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.undo = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(
            one.dtype == torch.bool for one in args[1] if one is not None
        )
        if by_mask or name in ASKS_A_TENSOR or name in BRINGS_VALUES:
            raise NotCapturable(f"{name} needs the host")
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.undo.append((value, value.clone()))
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out

    def capture(self, run):
        type(self).captures += 1
        with self:
            found = run()
        for tensor, before in reversed(self.undo):
            tensor.copy_(before)
        return found

    def replay(self):
        type(self).replays += 1
        for func, args, kwargs, out in self.calls:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if old is not new and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
