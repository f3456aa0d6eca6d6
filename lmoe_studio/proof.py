"""A bank proves itself on its base model before it is written: a text is read, whole and under the cache.

What holds for every base: without experts the model is the base model, a text read under a cache is
the text read at once, and each expert alone is what PEFT makes of the same adapter. An architecture in
which one of these fails would write wrong text without a word.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from lmoe_studio.architecture import decoder_blocks, embedded_tokens
from lmoe_studio.base_models import BaseIdentity, over_same_weights
from lmoe_studio.errors import AdapterError, BaseModelError, LMoEError
from lmoe_studio.experts.adapter_places import fused_keys
from lmoe_studio.experts.bank import Expert, ExpertBank
from lmoe_studio.experts.lora import LoraAdapter, to_peft
from lmoe_studio.mixture.base_pass import run_base, token_batch
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override
from lmoe_studio.routing.settings import RouterSettings

_Ranks = tuple[tuple[str, int], ...]
"""The rank of each layer of an adapter."""

_TOKENS = 12
_READ_FIRST = 8  # of them in one pass, the others under its cache


@dataclass(frozen=True)
class Proof:
    """A base model and a text, ready to try banks on."""

    base: PreTrainedModel
    ids: Tensor
    """`[1, token]`."""
    logits: Tensor
    """The base model's own."""
    cache_error: float
    """How far the base model alone comes from them under its cache."""
    with_peft: "dict[_Ranks, PreTrainedModel]" = field(default_factory=dict)
    """The base model with PEFT's layers, as the last expert had them: the next often has them too."""

    @classmethod
    def of(cls, base: PreTrainedModel) -> "Proof":
        """Read a text with the base model alone.

        Raises:
            BaseModelError: its tokens see those after them, or it cannot be run.
        """
        count = embedded_tokens(base)
        ids = (torch.arange(_TOKENS) * 7 + 3).remainder(count)[None].to(base.device)
        with _running("The base model"), torch.inference_mode():
            logits = _read(base, ids)
            other = ids.clone()
            other[:, -1] = (other[:, -1] + 1) % count
            sees_ahead = _apart(_read(base, other)[:, :-1], logits[:, :-1]) > _room(logits)
            cache_error = _apart(_read(base, ids, _READ_FIRST), logits)
        if sees_ahead:
            raise BaseModelError(
                f"{type(base).__name__} lets tokens see those after them, as an encoder does; L-MoE "
                "Studio routes decoder-only language models."
            )
        return cls(base, ids, logits, cache_error)

    def of_expert(self, expert: Expert, identity: BaseIdentity) -> None:
        """Try one expert alone against PEFT.

        Args:
            expert: with an adapter of this base model.
            identity: of the base model.

        Raises:
            AdapterError: it comes out otherwise, and in which layer first; or the base model does not
                run with it.
        """
        settings = RouterSettings(kind="uniform")
        alone = ExpertBank(expert.name, identity, (expert,), settings)
        other = self._with_peft(expert.adapter)
        modules = expert.adapter.factors
        with _running("The base model with this adapter", AdapterError), torch.inference_mode():
            with self._mixing(alone) as model, _listening(model.base, modules) as mine:
                logits = model(self.ids).logits
            with _listening(
                other, [name for name in modules if modules[name].a.ndim == 2]
            ) as theirs:
                expected = _read(other, self.ids)
        silent = [name for name in modules if name not in mine and modules[name].update_norm]
        if silent:
            raise AdapterError(
                f"{type(self.base).__name__} never calls {silent[0]} but reads its weights itself, so "
                f"that an update there does nothing; leave it out (--leave-out {_last(silent[0])}; "
                "leave_out in Python)."
            )
        wrong = _first_apart(mine, theirs)
        if wrong or _apart(logits, expected) > _room(expected):
            raise AdapterError(
                f"it comes out otherwise than PEFT has it, first in {wrong or 'the logits'}; leave that "
                "layer out (leave_out), and please report the base model's architecture, "
                f"{type(self.base).__name__}."
            )

    @contextmanager
    def _mixing(self, bank: ExpertBank) -> Iterator[MixtureModel]:
        """The base model with a bank, for a while."""
        model = MixtureModel(self._own, bank).eval()
        try:
            yield model
        finally:
            model.detach()

    @cached_property
    def _own(self) -> PreTrainedModel:
        """The base model once more, to attach banks to."""
        return over_same_weights(self.base)

    def _with_peft(self, adapter: LoraAdapter) -> PreTrainedModel:
        """The base model with PEFT's own layers, holding an adapter's factors."""
        ranks = tuple((name, one.rank) for name, one in sorted(adapter.factors.items()))
        model = self.with_peft.get(ranks)
        if model is None:
            self.with_peft.clear()
            model = self.with_peft[ranks] = _with_peft_layers(self.base, adapter)
        fused = fused_keys(name for name, one in adapter.factors.items() if one.a.ndim > 2)
        for name, one in adapter.factors.items():
            layer: Any = model.get_submodule(fused.get(name, name))
            weight = next(layer.get_base_layer().parameters())
            place = weight.device, weight.dtype if weight.is_floating_point() else self.base.dtype
            layer.scaling["default"] = one.scale
            for side, matrix in zip(("lora_A", "lora_B"), to_peft(one), strict=True):
                getattr(layer, side)["default"].weight = nn.Parameter(matrix.to(*place), False)
        return model

    def of_bank(self, bank: ExpertBank) -> None:
        """Try a bank under its router: whole, under the cache, and without its experts.

        Raises:
            BaseModelError: something comes out otherwise than it should.
        """
        with (
            _running("The base model under this router"), torch.inference_mode(),
            self._mixing(bank) as model,
        ):  # fmt: skip
            bypassed = model(self.ids, plan=Override.bypass()).logits
            whole = model(self.ids, record=True).logits
            start = model(self.ids[:, :_READ_FIRST], use_cache=True, record=True)
            parts, cache = [start.logits], start.past_key_values
            for place in range(_READ_FIRST, _TOKENS):
                step = model(self.ids[:, place, None], past_key_values=cache, use_cache=True)
                parts, cache = [*parts, step.logits], step.past_key_values
        cached = _apart(torch.cat(parts, dim=1), whole)
        for is_wrong, what in (
            (_apart(bypassed, self.logits) > _room(whole), "is another without its experts"),
            (cached > _room(whole) + 2 * self.cache_error, "reads otherwise under a cache"),
        ):
            if is_wrong:
                raise BaseModelError(
                    f"{type(self.base).__name__} {what}, so that what it writes would be wrong; please "
                    "report this architecture."
                )


def _read(base: PreTrainedModel, ids: Tensor, first: int | None = None) -> Tensor:
    """Logits; with `first` of so many tokens in one pass, and of each other in one of its own."""
    parts, cache = [], None
    stops = [ids.shape[1]] if first is None else range(first, ids.shape[1] + 1)
    start = 0
    for stop in stops:
        tokens = token_batch(ids[:, start:stop], None, None, start)
        output = run_base(
            base, tokens, None, cache=cache, use_cache=first is not None, logits_to_keep=0
        )
        parts, cache, start = [*parts, output.logits], output.cache, stop
    return torch.cat(parts, dim=1)


def _with_peft_layers(base: PreTrainedModel, adapter: LoraAdapter) -> PreTrainedModel:
    """The base model with PEFT's own layers for an adapter, yet without its factors.

    Only the blocks are shown to PEFT: for a whole model of some mixture of experts it would go on to
    adapt other weights than these.
    """
    copy = over_same_weights(base)
    path, blocks = decoder_blocks(copy)
    factors = {name.removeprefix(f"{path}."): one for name, one in adapter.factors.items()}
    ordered = sorted(factors, key=len, reverse=True)
    fused = fused_keys(name for name in ordered if factors[name].a.ndim > 2)
    config = LoraConfig(
        target_modules=[name for name in ordered if name not in fused],
        target_parameters=[*fused] or None,
        rank_pattern={f"^{name}": factors[name].rank for name in ordered},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inject_adapter_in_model(config, blocks, low_cpu_mem_usage=True)
    return copy.eval()


@contextmanager
def _listening(model: nn.Module, modules: Any) -> Iterator[dict[str, Tensor]]:
    """What comes out of some layers, in the order in which they run."""
    heard = dict[str, Tensor]()

    def hear(name: str, _: nn.Module, __: Any, output: Tensor) -> None:
        heard.setdefault(name, output)

    hooks = [
        model.get_submodule(name).register_forward_hook(partial(hear, name)) for name in modules
    ]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _running(what: str, kind: type[LMoEError] = BaseModelError) -> Iterator[None]:
    """A base model that stops in the middle says so in one sentence."""
    try:
        yield
    except (LMoEError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever an architecture's own code raises
        first = next(iter(str(error).splitlines()), "")
        raise kind(
            f"{what} does not run ({type(error).__name__}: {first[:200]}); try it without the layers "
            "that are not in every block (leave_out, --leave-out)."
        ) from None


def _first_apart(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> str | None:
    for name, output in theirs.items():
        if name in mine and _apart(mine[name], output) > _room(output):
            return name
    return None


def _apart(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    return float((one.float() - other.float()).abs().max())


def _room(expected: Tensor) -> float:
    """What rounding alone may do: three roots of the type's precision, of the largest number."""
    size = max(float(expected.float().abs().max()), 1e-3)
    return 3 * torch.finfo(expected.dtype).eps ** 0.5 * size


def _last(path: str) -> str:
    return path.rpartition(".")[2]
