"""The tensors of a safetensors file, once its header was looked at: finite, and of a sane size."""

from collections.abc import Mapping
from io import BufferedReader

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.safetensors_check import Header, show

MAX_VALUE = 65504.0
"""The largest float16; trained weights of adapters and routers stay below ten."""


def load_tensors(file: BufferedReader, header: Header, name: str) -> dict[str, Tensor]:
    """The tensors of a file that stands where its data begin.

    Raises:
        AdapterError: the file has changed since its header was read, or holds a value that is not
            finite or above `MAX_VALUE`.
    """
    try:
        tensors = load(header.raw + file.read())
    except SafetensorError:
        raise AdapterError(f"{name} is damaged; copy the file again.") from None
    check_values(tensors, name)
    return {key: tensors[key] for key in sorted(tensors)}  # they come in another order each time


def check_values(tensors: Mapping[str, Tensor], name: str) -> None:
    """Raises AdapterError for a value that is not finite or above `MAX_VALUE`."""
    for key, tensor in tensors.items():
        largest = tensor.float().abs().max().item()  # NaN if any value is
        if not largest <= MAX_VALUE:
            raise AdapterError(
                f"{name} has the value {largest:g} in the tensor {show(key)} where finite "
                f"numbers up to {MAX_VALUE:g} were expected; train or export it again."
            )
