"""Merge a live blend and check what was written: reloaded, does it say what the blend says?"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.base_models import no_bars
from lmoe_studio.errors import BaseModelError, StorageError
from lmoe_studio.experts.merge import Blend, Merged, add_to_base, merge_blend, merge_experts
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.quantisation import quantised_linears
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.routing.static import static_blends
from lmoe_studio.whole import require_free, whole_folder

CHECK_TEXT = "The quick brown fox jumps over the lazy dog; SELECT 1; 2 + 2 = 4."


@dataclass(frozen=True)
class MergeResult:
    """What was written, and how far it is from the live blend."""

    folder: Path
    rank: int
    """The largest of the merged adapter's modules."""
    errors: dict[str, float]
    """By module: relative error of the merged update; 0 where it is exact."""
    max_difference: float
    """Between logits of the reloaded model and those of the live blend, on `CHECK_TEXT`."""


def merge_and_check(
    model: MixtureModel,
    tokenizer: PreTrainedTokenizerBase,
    blend: Blend | RoutingPlan,
    out: Path,
    *,
    rank: int | None,
    full: bool,
) -> MergeResult:
    """Write a blend as a PEFT adapter, or as a whole model, and compare it with the live one.

    Args:
        model: the routed model.
        tokenizer: of its base.
        blend: weights by expert, or a plan that fixes all weights.
        out: the folder; must not exist.
        rank: the most that a module may have; None keeps the merge exact.
        full: write the base model with the blend in its weights instead of an adapter.

    Raises:
        PlanError: the plan's weights depend on the token.
        BankError: an expert is not in the bank.
        ConfigError: a weight or the rank is out of range.
        BaseModelError: the base model is quantised.
        StorageError: the folder exists or cannot be written.
    """
    if quantised_linears(model.base):
        raise BaseModelError(
            "This base model is quantised, and a merge is checked against the weights in full "
            "precision; load the base without `quantize`."
        )
    experts = model.bank.expert_names
    if isinstance(blend, RoutingPlan):
        weights = static_blends(blend, experts=experts, num_layers=model.num_layers)
    else:
        weights = blend
    if full:
        merged = merge_experts(model.bank, weights, rank=rank)
        reloaded = _write_full(model, tokenizer, merged, out)
    else:
        merged = merge_blend(model.bank, weights, out=out, rank=rank)
        reloaded = _with_peft(plain_copy(model), out)
    ids = tokenizer(CHECK_TEXT, return_tensors="pt")["input_ids"]
    difference = _difference(model, reloaded, ids, weights)
    return MergeResult(out, merged.rank, merged.errors, difference)


def plain_copy(model: MixtureModel) -> PreTrainedModel:
    """The base model once more, without the bank, frozen."""
    config = model.base.config
    copy = type(model.base)._from_config(config, dtype=next(model.base.parameters()).dtype)
    copy.load_state_dict(model.base_state())
    nn.Module.to(copy, next(model.base.parameters()).device)
    return copy.eval().requires_grad_(False)


def _with_peft(base: PreTrainedModel, folder: Path) -> PeftModel:
    with warnings.catch_warnings():  # PEFT asks transformers by an old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return PeftModel.from_pretrained(base, str(folder)).eval()


def _write_full(
    model: MixtureModel, tokenizer: PreTrainedTokenizerBase, merged: Merged, out: Path
) -> PreTrainedModel:
    require_free(out)
    copy = plain_copy(model)
    add_to_base(copy, merged.adapter)
    try:
        with whole_folder(out) as staged:
            with no_bars():
                copy.save_pretrained(staged)
            tokenizer.save_pretrained(staged)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror or error}.") from None
    dtype = next(copy.parameters()).dtype
    with no_bars():
        reloaded = type(copy).from_pretrained(out, dtype=dtype, use_safetensors=True)
    nn.Module.to(reloaded, next(copy.parameters()).device)
    return reloaded.eval()


@torch.inference_mode()
def _difference(
    model: MixtureModel,
    reloaded: torch.nn.Module,
    ids: torch.Tensor,
    weights: Blend | Sequence[Blend],
) -> float:
    ids = ids.to(next(model.parameters()).device)
    rows = [weights] * model.num_layers if isinstance(weights, Mapping) else weights
    table = torch.tensor(
        [[row.get(name, 0.0) for name in model.bank.expert_names] for row in rows],
        device=ids.device,
    )
    sites = table[[site.layer for site in model.sites]]
    live = model(ids, routing_weights=sites.expand(1, ids.shape[1], -1, -1)).logits
    return float((reloaded(ids).logits.float() - live.float()).abs().max())
