"""What transformers' Trainer resumes from, beside the bank: the learned parameters under its file's name."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn
from transformers.utils import SAFE_WEIGHTS_NAME

from lmoe_studio.errors import StorageError
from lmoe_studio.mixture.state import whole_tensor


def write_learned(model: nn.Module, folder: Path) -> None:
    """Write what is learned of a model, as it is. Raises StorageError."""
    own = {
        name: whole_tensor(one.detach()).cpu().contiguous()
        for name, one in model.named_parameters()
        if one.requires_grad
    }
    try:
        save_file(own, folder / SAFE_WEIGHTS_NAME, {"format": "pt"})
    except OSError as error:
        raise StorageError(
            f"The checkpoint could not be written to {folder}: {error.strerror or error}."
        ) from None


def without_frozen(model: nn.Module, result: Any) -> Any:
    """What `load_state_dict` found missing, less what such a file does not hold."""
    learned = {name for name, one in model.named_parameters() if one.requires_grad}
    missing = [name for name in result.missing_keys if name in learned]
    return type(result)(missing, result.unexpected_keys)
