"""Seconds of the processor to import 20 adapters of rank 16, against PEFT's to load them.

`python -m benchmarks.importing` makes random adapters of every linear layer of the embedded base.
The import reads them, compares each with PEFT, tries the bank and writes it; PEFT only loads them.
"""

import copy
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel

from lmoe_studio.base_models import BaseModel, load_base
from lmoe_studio.experts.adapter import write_adapter
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors
from lmoe_studio.importing import import_adapters

_ADAPTERS, _RANK = 20, 16


def main() -> None:
    """Print both times and their ratio."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    base = load_base(device="cpu")
    with tempfile.TemporaryDirectory() as place:
        folders = _write_adapters(base, Path(place))
        peft = _seconds(lambda: _load_with_peft(base, folders))
        ours = _seconds(lambda: import_adapters(folders, Path(place) / "bank", beside=base))
    print(f"import {ours:.1f} s, PEFT {peft:.1f} s, ratio {ours / peft:.2f}")


def _write_adapters(base: BaseModel, place: Path) -> dict[str, Path]:
    generator = torch.Generator().manual_seed(0)
    folders = {f"e{number}": place / f"e{number}" for number in range(_ADAPTERS)}
    inside = {
        path: shape
        for path, shape in (base.identity.linear_shapes or {}).items()
        if base.identity.blocks and path.startswith(base.identity.blocks)
    }
    for folder in folders.values():
        factors = {
            path: LoraFactors(
                torch.randn(_RANK, d_in, generator=generator) / 50,
                torch.randn(d_out, _RANK, generator=generator) / 50,
                2.0,
            )
            for path, (d_out, d_in) in inside.items()
        }
        write_adapter(LoraAdapter(factors), folder, base=base.identity.id)
    return folders


def _load_with_peft(base: BaseModel, folders: dict[str, Path]) -> None:
    (first, folder), *others = folders.items()
    model = PeftModel.from_pretrained(copy.deepcopy(base.model), folder, adapter_name=first)
    for name, folder in others:
        model.load_adapter(folder, adapter_name=name)


def _seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    main()
