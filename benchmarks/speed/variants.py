"""Every way to run a base model with LoRAs that is compared: PEFT's and ours, over one base.

All share the base's weights in memory, hold experts of the same shapes and values, and compute in
the base's type. (PEFT would keep the adapters of a bfloat16 base in float32, which is slower.)
"""

import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import (
    ArrowConfig,
    LoraConfig,
    PeftModel,
    XLoraConfig,
    create_arrow_model,
    get_peft_model,
)
from torch import nn

from benchmarks.speed.bases import SHAPES, load_shape, twin
from lmoe_studio.base_models import BaseModel
from lmoe_studio.config import Composition
from lmoe_studio.experts.bank import Expert, ExpertBank
from lmoe_studio.experts.files import save_bank
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.studio import Studio

warnings.filterwarnings(  # PEFT asks the old name
    "ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning
)

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_SCALE = 2.0
_SIZE = 0.02


def random_bank(
    base: BaseModel, experts: int, rank: int, composition: Composition = "output"
) -> ExpertBank:
    """Small random experts on every linear layer of every block."""
    shapes = base.identity.linear_shapes or {}
    found = []
    for index in range(experts):
        factors = {
            name: LoraFactors(
                torch.randn(rank, d_in) * _SIZE, torch.randn(d_out, rank) * _SIZE, _SCALE
            )
            for name, (d_out, d_in) in shapes.items()
            if name.rsplit(".", 1)[-1] in LINEARS
        }
        found.append(Expert(f"e{index}", LoraAdapter(factors)))
    state = _even_routers(base, found[0].adapter, experts)
    return ExpertBank(
        "random", base.identity, tuple(found), router_state=state, composition=composition
    )


def _even_routers(base: BaseModel, adapter: LoraAdapter, experts: int) -> dict[str, torch.Tensor]:
    """Linear routers, one a block, as they are before any training."""
    width = base.model.config.hidden_size
    blocks = {name.split(".layers.")[1].split(".")[0] for name in adapter.factors}
    weights = {f"layers.{block}.weight": torch.zeros(experts, width) for block in blocks}
    return weights | {f"layers.{block}.bias": torch.zeros(experts) for block in blocks}


class Variants:
    """Builds each variant when it is first asked for, and keeps it until told to `forget`."""

    def __init__(self, shape: str, device: str) -> None:
        self.name = shape
        self.shape = SHAPES[shape]
        self.device = device
        self._built: dict[tuple[object, ...], Any] = {}
        self._group = ""
        self._folds = ExitStack()

    @cached_property
    def base(self) -> BaseModel:
        torch.manual_seed(0)
        return load_shape(self.name, self.device)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.base.model.parameters()).dtype

    def keep_for(self, group: str) -> None:
        """Let go of what was built for another group of rows."""
        if group != self._group:
            self.forget()
            self._group = group

    def forget(self) -> None:
        """Let go of every variant; the base stays."""
        self._folds.close()
        self._built.clear()

    def lora(self, rank: int, *, train: bool = False) -> nn.Module:
        """PEFT's LoRA of one rank on the same layers."""

        def build() -> nn.Module:
            config = LoraConfig(
                r=rank,
                lora_alpha=int(_SCALE * rank),
                target_modules=LINEARS,
                task_type="CAUSAL_LM",
                init_lora_weights=False,
            )
            return self._ready(get_peft_model(twin(self.base.model), config), train)

        return self._once(("lora", rank, train), build)

    def xlora(self, experts: int, rank: int, *, train: bool = False) -> nn.Module:
        """PEFT's X-LoRA: scores of every layer from a first pass; trained with its experts."""

        def build() -> nn.Module:
            model = twin(self.base.model)
            model.config.use_cache = False  # it refuses a cache
            with tempfile.TemporaryDirectory() as folder:
                paths = self._adapters(experts, rank, folder)
                config = XLoraConfig(
                    task_type="CAUSAL_LM",
                    hidden_size=model.config.hidden_size,
                    adapters={str(index): path for index, path in enumerate(paths)},
                    layerwise_scalings=True,
                    use_trainable_adapters=train,
                )
                return self._ready(get_peft_model(model, config), train)

        return self._once(("xlora", experts, rank, train), build)

    def arrow(self, experts: int, rank: int) -> nn.Module:
        """PEFT's Arrow with its default of three experts a token; it has nothing to train."""

        def build() -> nn.Module:
            with tempfile.TemporaryDirectory() as folder:
                paths = self._adapters(experts, rank, folder)
                config = ArrowConfig(top_k=min(3, experts))
                return self._ready(create_arrow_model(twin(self.base.model), paths, config), False)

        return self._once(("arrow", experts, rank), build)

    def lmoe(self, experts: int, rank: int, composition: Composition = "output") -> Studio:
        """Ours, as a Studio holds it."""

        def build() -> Studio:
            base = replace(self.base, model=twin(self.base.model))
            bank = random_bank(base, experts, rank, composition)
            return Studio(base.model, base.tokenizer, bank)

        return self._once(("lmoe", experts, rank, composition), build)

    def folded_lmoe(self, experts: int, rank: int) -> Studio:
        """Ours with an even blend of all experts in the base's weights."""

        def build() -> Studio:
            base = replace(self.base, model=twin(self.base.model))
            studio = Studio(base.model, base.tokenizer, random_bank(base, experts, rank))
            self._folds.enter_context(studio.fold(RoutingPlan([Override.uniform()])))
            return studio

        return self._once(("folded", experts, rank), build)

    def trained_lmoe(
        self, experts: int, rank: int, composition: Composition = "output"
    ) -> MixtureModel:
        """Ours, as `run_training` sets it up: experts in float32."""
        bank = random_bank(self.base, experts, rank, composition)
        return MixtureModel(twin(self.base.model), bank, dtype=torch.float32).train()

    def _adapters(self, experts: int, rank: int, folder: str) -> list[str]:
        """Folders of random experts as PEFT reads them."""
        bank = save_bank(random_bank(self.base, experts, rank), Path(folder) / "bank")
        return [str(bank / "experts" / f"e{index}") for index in range(experts)]

    def _ready(self, model: PeftModel | nn.Module, train: bool) -> nn.Module:
        dtype = torch.float32 if train else self.dtype
        base = {id(p) for p in self.base.model.parameters()}
        for parameter in model.parameters():
            if id(parameter) not in base:
                parameter.data = parameter.data.to(self.device, dtype)
        return model.train(train)

    def _once(self, key: tuple[object, ...], build: Callable[[], Any]) -> Any:
        if key not in self._built:
            self._built[key] = build()
        return self._built[key]
