"""An expert or a blend for other engines: as a PEFT folder of one rank, or as GGUF for llama.cpp.

Engines differ in what they make of ranks and alphas that change from layer to layer (some take the
first for all), so here the scale is in the factors, alpha is the rank, and the rank is one: smaller
layers are filled up with zeros.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch.nn.functional import pad
from transformers import PreTrainedConfig

from lmoe_studio.base_models import load_config
from lmoe_studio.errors import ConfigError, StorageError
from lmoe_studio.experts.adapter import write_adapter
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.gguf_lora import write_gguf
from lmoe_studio.experts.lora import LoraAdapter
from lmoe_studio.experts.merge import Blend, Merged, merge_experts
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.routing.static import static_blends
from lmoe_studio.whole import require_free, whole_folder

Format = Literal["peft", "gguf"]
FORMATS: tuple[Format, ...] = ("peft", "gguf")


def export_blend(
    bank: ExpertBank,
    blend: Blend | RoutingPlan | str,
    out: Path,
    *,
    form: Format = "peft",
    rank: int | None = None,
    config: PreTrainedConfig | None = None,
) -> Merged:
    """Write one expert, or a blend of some, for another engine.

    Args:
        bank: the experts.
        blend: an expert's name, weights by expert, or a plan that fixes all weights.
        out: the folder of format `peft`, or the file of format `gguf`; must not exist.
        form: the format.
        rank: the most that a layer may have, by the nearest factors; None keeps all.
        config: of the base model, for GGUF; None reads that of the base that the bank names.

    Raises:
        BankError: an expert is not in the bank.
        PlanError: the plan's weights depend on the token.
        ConfigError: a weight, the rank or the format is out of range.
        AdapterError: GGUF does not know the base's layers.
        BaseModelError: the config of the base model cannot be had.
        StorageError: something is at `out`, or it cannot be written.
    """
    if form not in FORMATS:
        raise ConfigError(f"format '{form}' is not one of {', '.join(FORMATS)}.")
    require_free(out)
    config = config if config is not None or form == "peft" else load_config(bank.base.id)
    weights = _weights(bank, blend, config)
    merged = merge_experts(bank, weights, rank=rank)
    merged = replace(merged, adapter=even(merged.adapter))
    try:
        if form == "gguf":
            assert config is not None
            write_gguf(merged.adapter, out, config)
        else:
            with whole_folder(out) as staged:
                write_adapter(merged.adapter, staged, base=bank.base.id)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror or error}.") from None
    return merged


def even(adapter: LoraAdapter) -> LoraAdapter:
    """The same adapter with its scales in the factors and one rank, filled up with zeros."""
    rank = max(factors.rank for factors in adapter.factors.values())
    return replace(
        adapter,
        factors={
            name: replace(
                factors,
                a=pad(factors.a, (0, 0, 0, rank - factors.rank)),
                b=pad(factors.b * factors.scale, (0, rank - factors.rank)),
                scale=1.0,
            )
            for name, factors in adapter.factors.items()
        },
    )


def _weights(
    bank: ExpertBank, blend: Blend | RoutingPlan | str, config: PreTrainedConfig | None
) -> Blend | Sequence[Blend]:
    if isinstance(blend, str):
        bank.expert_index(blend)
        return {blend: 1.0}
    if isinstance(blend, Mapping):
        return blend
    text: Any = (config or load_config(bank.base.id)).get_text_config(decoder=True)
    return static_blends(
        blend,
        experts=bank.expert_names,
        num_layers=text.num_hidden_layers,
        why="other engines have one set of weights for all tokens",
    )
