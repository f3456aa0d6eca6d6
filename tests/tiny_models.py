"""A tiny random Llama and random banks, and the slow, obvious way to run them."""

from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder, Metaspace
from tokenizers.models import BPE
from tokenizers.normalizers import Prepend, Replace, Sequence as Normalizers
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from lmoe_studio.base_models import BaseIdentity, identify
from lmoe_studio.experts.bank import Expert, ExpertBank
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors
from lmoe_studio.mixture.sites import Site
from lmoe_studio.routing.registry import router_class
from lmoe_studio.routing.settings import RouterSettings, Threshold
from lmoe_studio.studio import Studio
from lmoe_studio.tracing.records import RoutingTrace

NAMES = ("sql", "prose", "math", "french", "drama", "python", "recipes", "spanish")
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_tiny_base(seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    model.set_attn_implementation("sdpa")
    return model


def make_tiny_tokenizer(*, bos: bool = False, eos: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte, and three special ones, of which some may be put around a text."""
    special = {"<pad>": 0, "<s>": 1, "</s>": 2}
    letters = {letter: 3 + i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(special | letters, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    around = f"{'<s> ' * bos}$A{' </s>' * eos}"
    tokenizer.post_processor = TemplateProcessing(
        single=around, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def make_metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama 2 reads: a blank before the text, blanks as ▁, `<s>` before it all."""
    letters = "▁\n" + "".join(map(chr, range(33, 127)))
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {c: 3 + i for i, c in enumerate(letters)}
    tokenizer = Tokenizer(BPE(vocabulary | {"▁A": 120}, [("▁", "A")]))
    tokenizer.normalizer = Normalizers([Prepend("▁"), Replace(" ", "▁")])
    tokenizer.decoder = Metaspace()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def make_tiny_studio(**options) -> Studio:
    model = make_tiny_base()
    bank = make_bank(model, **options)
    return Studio(model, make_tiny_tokenizer(), bank)


def sites_before_attention(trace: RoutingTrace) -> list[int]:
    """The sites that read the embeddings, so that no plan changes what their routers say."""
    modules = trace.site_modules or ["q_proj"] * len(trace.site_layers)
    return [
        site for site, layer in enumerate(trace.site_layers)
        if layer == 0 and modules[site].endswith(("q_proj", "k_proj", "v_proj"))
    ]  # fmt: skip


def make_bank(
    base: nn.Module,
    *,
    ranks: Sequence[int] = (4, 4, 4),
    targets: Sequence[str] = ALL_LINEAR,
    router: RouterSettings | None = None,
    composition: str = "output",
    scale: float = 2.0,
    size: float = 0.2,
    seed: int = 1,
    missing: Sequence[tuple[int, str]] = (),
    base_id: str = "tiny",
) -> ExpertBank:
    """A bank of random experts; `missing` lists (expert, target) pairs to leave out."""
    generator = torch.Generator().manual_seed(seed)
    identity: BaseIdentity = identify(base, base_id)
    assert identity.linear_shapes is not None
    experts = []
    for index, rank in enumerate(ranks):
        factors = {}
        for name, (*fused, d_out, d_in) in identity.linear_shapes.items():
            target = name.rsplit(".", 1)[-1]
            if target not in targets or (index, target) in missing:
                continue
            a = torch.randn(*fused, rank, d_in, generator=generator) * size
            b = torch.randn(*fused, d_out, rank, generator=generator) * size
            factors[name] = LoraFactors(a, b, scale)
        experts.append(Expert(NAMES[index], LoraAdapter(factors, base_id), f"expert {index}"))
    settings = router or RouterSettings()
    state = random_router_state(experts, identity, settings, generator)
    return ExpertBank(
        "random", identity, tuple(experts), settings, state, composition,  # type: ignore[arg-type]
    )  # fmt: skip


def random_router_state(
    experts: list[Expert],
    identity: BaseIdentity,
    settings: RouterSettings,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    assert identity.linear_shapes is not None
    modules = sorted({name for expert in experts for name in expert.adapter.factors})
    reads_hidden = next(n for n in identity.linear_shapes if n.endswith(("q_proj", "q_a_proj")))
    width = identity.linear_shapes[reads_hidden][-1]
    layers = sorted({int(name.split(".")[2]) for name in modules})
    sites = {
        "layer": {f"layers.{layer}": width for layer in layers},
        "shared": {"shared": width},
        "tied": {"tied": width + settings.layer_code},
        "module": {name: identity.linear_shapes[name][-1] for name in modules},
    }[settings.scope]
    state = {}
    for key, d_in in sites.items():
        kind = router_class(settings.kind)
        d_in = 259 if kind.reads == "ids" else d_in
        for name, shape in kind.all_shapes(settings, len(experts), d_in).items():
            sizes = [len(layers) if size is None else size for size in shape]
            spread = 2 / d_in**0.5 if len(shape) > 1 else 0.3
            if settings.activation == "identity":  # there a logit is the weight itself
                spread *= 0.5
            state[f"{key}.{name}"] = torch.randn(sizes, generator=generator) * spread
        if settings.kind == "knn":
            state |= random_memory(key, d_in, len(experts), generator)
    return state


def random_memory(
    key: str, d_in: int, experts: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Twelve examples of a knn router, and a temperature of their distances' size."""
    return {
        f"{key}.keys": torch.randn(12, d_in, generator=generator),
        f"{key}.labels": torch.arange(12.0) % experts,
        f"{key}.sources": torch.arange(12.0),
        f"{key}.usual_temperature": torch.tensor([float(d_in)]),
    }


ROUTERS = [
    RouterSettings(),
    RouterSettings(scope="shared"),
    RouterSettings(scope="module"),
    RouterSettings(scope="tied", layer_code=4, activation="identity"),
    RouterSettings(activation="sigmoid"),
    RouterSettings(activation="sigmoid", threshold=Threshold()),
    RouterSettings(pool="prefix", temperature=0.5),
    RouterSettings(pool="prompt", scope="module"),
    RouterSettings(temperature=0.5, top_k=2),
    RouterSettings(top_k=1, renormalise=False),
    RouterSettings(kind="uniform"),
    RouterSettings(kind="blend", blend={"sql": 0.6, "math": 0.4}),
    RouterSettings(kind="arrow", scope="module", top_k=2),
    RouterSettings(
        kind="typed", top_k=1,
        options={
            "types": [
                {"name": "begun", "tokens": [0, 1, 4], "experts": ["sql", "prose"]},
                {"name": "end", "tokens": {"start": 5}, "experts": ["prose", "math"]},
            ]
        },
    ),
    RouterSettings(
        kind="tree",
        options={
            "levels": [{"experts": ["prose"]}, {"experts": ["math", "sql"], "fan_out": 1}],
            "width": 4,
            "key": 3,
        },
    ),
    RouterSettings(kind="knn", options={"k": 5, "heads": 2}),
    RouterSettings(kind="pre", scope="tied", pool="prefix", options={"width": 8}),
]  # fmt: skip


def peft_model(base: nn.Module, bank: ExpertBank, expert: int) -> PeftModel:
    """PEFT's own LoRA layers around `base`, holding one expert's factors."""
    adapter = bank.experts[expert].adapter
    ranks = {name: factor.rank for name, factor in adapter.factors.items()}
    alphas = {name: factor.rank * factor.scale for name, factor in adapter.factors.items()}
    config = LoraConfig(
        r=1, lora_alpha=1, target_modules=list(ranks), rank_pattern=ranks, alpha_pattern=alphas,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(base, config).eval()
    for name, factor in adapter.factors.items():
        layer = model.base_model.model.get_submodule(name)
        layer.lora_A["default"].weight.data.copy_(factor.a)
        layer.lora_B["default"].weight.data.copy_(factor.b)
    return model


@torch.no_grad()
def peft_logits(bank: ExpertBank, ids: torch.Tensor, expert: int) -> torch.Tensor:
    return peft_model(make_tiny_base(), bank, expert)(ids).logits


@torch.no_grad()
def brute_force_logits(
    bank: ExpertBank, ids: torch.Tensor, weights: torch.Tensor, sites: Sequence[Site]
) -> torch.Tensor:
    """Mix the experts with a loop over experts in every linear layer, from given weights."""
    return with_loops(make_tiny_base(), bank, weights, sites)(ids).logits


def with_loops(
    base: nn.Module, bank: ExpertBank, weights: torch.Tensor, sites: Sequence[Site]
) -> nn.Module:
    """A base model with a loop over experts beside every linear layer."""
    for name in bank.modules:
        layer = int(name.split(".")[2])
        site = next(i for i, s in enumerate(sites) if s.layer == layer and s.module in (None, name))
        base.get_submodule(name).register_forward_hook(_loop_over(bank, name, weights[:, :, site]))
    return base


def _loop_over(bank, name, weights):
    experts = [
        (weights[..., i, None], expert.adapter.factors[name])
        for i, expert in enumerate(bank.experts)
        if name in expert.adapter.factors
    ]

    def add(module, args, y):
        x = args[0]
        if bank.composition == "output":
            return y + sum(w * f.scale * (x @ f.a.T @ f.b.T) for w, f in experts)
        a = sum(w[..., None] * f.a for w, f in experts)  # [batch, seq, rank, d_in]
        b = sum(w[..., None] * f.scale * f.b for w, f in experts)  # [batch, seq, d_out, rank]
        return y + (b @ (a @ x[..., None])).squeeze(-1)

    return add
