"""Adapters of every kind that PEFT makes: each is an expert that equals PEFT's, or one sentence.

All of a shelf are imported at once, so that a kind that is refused takes no other with it.
"""

import copy
import json
import re
import warnings

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import make_tiny_base, make_tiny_tokenizer

from lmoe_studio.base_models import BaseModel, identify
from lmoe_studio.importing import import_adapters
from lmoe_studio.routing.plan import Override
from lmoe_studio.studio import Studio

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
IDS = (torch.arange(24) * 7 + 3).remainder(259)[None]
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
CAUSAL, SOME = "CAUSAL_LM", ["q_proj", "v_proj", "up_proj"]


def write(config, folder, *, model=None, **options):
    """An adapter as PEFT writes it, with random numbers in all that it trains."""
    torch.manual_seed(5)
    trained = get_peft_model(model or make_tiny_base(), config)
    for name, parameter in trained.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            parameter.data += torch.randn_like(parameter) / 10
    trained.save_pretrained(folder, **options)


def lora(then=lambda folder: None, save=None, **fields):
    def make(folder):
        options = {"r": 4, "lora_alpha": 8, "task_type": CAUSAL, "target_modules": SOME} | fields
        write(LoraConfig(**options), folder, **(save or {}))
        then(folder)

    return make


def other(name, **fields):
    def make(folder):
        write(getattr(peft, name)(task_type=CAUSAL, **fields), folder)

    return make


def fields(remove=(), **changes):
    def then(folder):
        path = folder / CONFIG
        said = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in said.items() if k not in remove}))

    return then


def keys(change, dtype=None):
    def then(folder):
        tensors = load_file(folder / WEIGHTS)
        save_file({change(key): one.to(dtype or one.dtype) for key, one in tensors.items()},
                  folder / WEIGHTS)  # fmt: skip

    return then


def stored_as(dtype):
    return keys(lambda key: key, dtype)


def beside(*names):
    def then(folder):
        for name in names:
            (folder / name).write_bytes(b"\x80\x04.")

    return then


def pickle_only(folder):
    (folder / WEIGHTS).unlink()
    torch.save({}, folder / "adapter_model.bin")


def zero_b(folder):
    tensors = load_file(folder / WEIGHTS)
    save_file({k: t * ("lora_A" in k) for k, t in tensors.items()}, folder / WEIGHTS)


def converted_pissa(folder):
    """A LoRA of twice the rank, of the difference to where it started."""
    start = folder / "start"
    torch.manual_seed(5)
    config = LoraConfig(r=4, init_lora_weights="pissa", target_modules=["q_proj"], task_type=CAUSAL)
    model = get_peft_model(make_tiny_base(), config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(start)
    model.peft_config["default"].init_lora_weights = "pissa"
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += torch.randn_like(parameter) / 50
    model.save_pretrained(folder, path_initial_model_for_weight_conversion=str(start))
    for path in start.iterdir():
        path.unlink()
    start.rmdir()


def sequence_classifier(folder):
    from transformers import LlamaForSequenceClassification

    model = LlamaForSequenceClassification(make_tiny_base().config)
    write(LoraConfig(task_type="SEQ_CLS", target_modules=SOME), folder, model=model)


def without_head(folder):
    write(LoraConfig(target_modules=SOME), folder, model=make_tiny_base().model)


def resized(folder):
    model = make_tiny_base()
    model.resize_token_embeddings(300)
    write(LoraConfig(target_modules=SOME, task_type=CAUSAL), folder, model=model,
          save_embedding_layers=True)  # fmt: skip


def wider(folder):
    from transformers import LlamaForCausalLM

    config = make_tiny_base().config
    config.hidden_size, config.head_dim = 64, 16
    write(LoraConfig(target_modules=SOME, task_type=CAUSAL), folder, model=LlamaForCausalLM(config))


SUFFIX = {"layers.1.mlp.up_proj": 2, "q_proj": 6}
UNSLOTH = {
    "auto_mapping": {
        "base_model_class": "LlamaForCausalLM", "unsloth_fixed": True,
        "parent_library": "transformers.models.llama.modeling_llama",
    },
    "target_modules": r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?)|(?:\bmodel\.layers\.[\d]{1,}"
    r"\.(?:self_attn|mlp)\.(?:(?:q_proj|v_proj|up_proj)))",
}  # fmt: skip
REPLICATED = {"layer_replication": [[0, 2], [1, 3]]}
OLD = ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "peft_version", "eva_config")

EXACT = {
    "plain": lora(),
    "one layer": lora(target_modules=["model.layers.1.mlp.up_proj"]),
    "all linear": lora(target_modules="all-linear"),
    "rank of one": lora(r=1),
    "rank above the width": lora(r=40, target_modules=["k_proj"]),
    "rank-stabilised": lora(use_rslora=True),
    "rank-stabilised with patterns": lora(use_rslora=True, rank_pattern=SUFFIX),
    "rank pattern": lora(rank_pattern=SUFFIX),
    "anchored pattern": lora(rank_pattern={"^model.layers.1.mlp.up_proj": 3}),
    "pattern that is an expression": lora(rank_pattern={r".*\.(q|v)_proj": 3}),
    "alpha pattern": lora(alpha_pattern={"q_proj": 3.5}),
    "float alpha": lora(lora_alpha=2.5),
    "targets by expression": lora(target_modules=r".*\.(0|2)\..*(q_proj|down_proj)"),
    "targets by whole path": lora(target_modules=["layers.0.self_attn.o_proj"]),
    "but for a list": lora(exclude_modules=["layers.1.self_attn.q_proj"]),
    "but for an expression": lora(exclude_modules=r".*layers\.2.*"),
    "some layers": lora(layers_to_transform=[0, 2]),
    "some layers by pattern": lora(layers_to_transform=[1], layers_pattern="layers"),
    "dropout": lora(lora_dropout=0.3),
    "gaussian": lora(init_lora_weights="gaussian"),
    "orthogonal": lora(init_lora_weights="orthogonal"),
    "EVA": lora(then=fields(init_lora_weights="eva", eva_config={"rho": 2.0})),
    "MiCA": lora(then=fields(init_lora_weights="mica")),
    "PiSSA, converted when saved": converted_pissa,
    "fan_in_fan_out": lora(then=fields(fan_in_fan_out=True)),
    "Unsloth": lora(then=fields(**UNSLOTH)),
    "configuration of PEFT 0.4": lora(then=fields(OLD)),
    "fields of PEFT 0.2": lora(then=fields(enable_lora=None, merge_weights=False)),
    "an unknown field that is off": lora(then=fields(new_way=False, use_new=None)),
    "an unknown field of a person": lora(then=fields(trained_by="me")),
    "base of another machine": lora(then=fields(base_model_name_or_path="/home/me/llama")),
    "no base": lora(then=fields(base_model_name_or_path=None)),
    "no task": lora(task_type=None),
    "another task without its head": lora(then=fields(task_type="SEQ_CLS")),
    "bfloat16": lora(then=stored_as(torch.bfloat16)),
    "float16": lora(then=stored_as(torch.float16)),
    "zero B": lora(then=zero_b),
    "beside a pickle": lora(then=beside("adapter_model.bin")),
    "a checkpoint": lora(then=beside("optimizer.pt", "training_args.bin", "tokenizer.json")),
    "keys with the adapter's name": lora(
        then=keys(lambda key: key.replace(".weight", ".default.weight"))
    ),
    "a base without its head": without_head,
    "modules_to_save, empty": lora(modules_to_save=[]),
}  # fmt: skip
RENAMED = {  # PEFT would pass over these without a word; each is the adapter "plain"
    "keys without a prefix": lora(then=keys(lambda key: key.removeprefix("base_model.model."))),
    "keys of torch.compile": lora(then=keys(lambda key: f"_orig_mod.{key}")),
    "keys of a wrapper": lora(then=keys(lambda key: f"module.{key}")),
}
REFUSED = {
    "DoRA": (lora(use_dora=True), "'use_dora'.*merge"),
    "bias all": (lora(bias="all"), "'bias'.*bias='none'"),
    "bias of LoRA layers": (lora(bias="lora_only"), "'bias'.*bias='none'"),
    "LoRA bias": (lora(lora_bias=True), "'lora_bias'.*lora_bias=False"),
    "head saved whole": (lora(modules_to_save=["lm_head"]), "modules_to_save.*--leave-out"),
    "embeddings saved whole": (lora(modules_to_save=["embed_tokens"]), "modules_to_save"),
    "norms saved whole": (lora(modules_to_save=["input_layernorm"]), "modules_to_save"),
    "the head": (
        lora(target_modules=["q_proj", "lm_head"], save={"save_embedding_layers": False}),
        "outside the decoder blocks.*--leave-out lm_head",
    ),
    "embeddings": (
        lora(target_modules=["q_proj", "embed_tokens"], save={"save_embedding_layers": False}),
        "adapts an embedding",
    ),
    "PiSSA": (lora(init_lora_weights="pissa"), "'init_lora_weights'.*path_initial_model"),
    "PiSSA by iterations": (lora(init_lora_weights="pissa_niter_4"), "path_initial_model"),
    "OLoRA": (lora(init_lora_weights="olora"), "'init_lora_weights'.*path_initial_model"),
    "LoftQ": (lora(then=fields(init_lora_weights="loftq")), "'init_lora_weights'"),
    "CorDA": (lora(then=fields(corda_config={"x": 1})), "'corda_config'"),
    "LoRA-GA": (lora(then=fields(lora_ga_config={"x": 1})), "'lora_ga_config'"),
    "tokens trained": (lora(trainable_token_indices=[1, 2]), "'trainable_token_indices'"),
    "activated LoRA": (lora(alora_invocation_tokens=[1]), "'alora_invocation_tokens'"),
    "layers repeated": (lora(then=fields(**REPLICATED)), "'layer_replication'"),
    "QA-LoRA": (lora(then=fields(use_qalora=True)), "'use_qalora'"),
    "a way to compute of tomorrow": (lora(then=fields(use_tomorrow=True)), "'use_tomorrow'"),
    "a classifier": (sequence_classifier, "modules_to_save"),
    "more tokens": (resized, "embed_tokens|lm_head"),
    "a wider base": (wider, "was expected"),
    "only a pickle": (lora(then=pickle_only), "a pickle"),
    "alpha below 0": (lora(then=fields(lora_alpha=-8)), "'lora_alpha'"),
    "rank not as stored": (lora(then=fields(r=5)), "has shape"),
    "IA3": (
        other("IA3Config", target_modules=["k_proj"], feedforward_modules=[]), "'IA3'.*no other",
    ),
    "LoHa": (other("LoHaConfig", target_modules=SOME), "'LOHA'"),
    "LoKr": (other("LoKrConfig", target_modules=SOME), "'LOKR'"),
    "VeRA": (other("VeraConfig", target_modules=["q_proj"]), "'VERA'"),
    "OFT": (other("OFTConfig", target_modules=["q_proj"], oft_block_size=4), "'OFT'"),
    "BOFT": (other("BOFTConfig", target_modules=["q_proj"], boft_block_size=4), "'BOFT'"),
    "AdaLoRA": (other("AdaLoraConfig", target_modules=SOME, total_step=9), "'ADALORA'"),
    "layer norms": (other("LNTuningConfig", target_modules=["norm"]), "'LN_TUNING'"),
    "prompt tuning": (other("PromptTuningConfig", num_virtual_tokens=4), "'PROMPT_TUNING'"),
    "prefix tuning": (other("PrefixTuningConfig", num_virtual_tokens=4), "'PREFIX_TUNING'"),
    "P-tuning": (other("PromptEncoderConfig", num_virtual_tokens=4), "'P_TUNING'"),
}  # fmt: skip
KINDS = EXACT | RENAMED | {name: make for name, (make, _) in REFUSED.items()}


def slug(name):
    return "".join(letter if letter.isalnum() else "-" for letter in name)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """All of them as one import: the folder, what became of them, and a studio of the bank."""
    place = tmp_path_factory.mktemp("shelf")
    model = make_tiny_base()
    base = BaseModel(model, make_tiny_tokenizer(), identify(model, "tiny"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make in KINDS.items():
            make(place / slug(name))
        folders = {slug(name): place / slug(name) for name in KINDS}
        made = import_adapters(
            folders, place / "bank", base="tiny", beside=base, leave_out_refused=True
        )
    studio = Studio(make_tiny_base(), make_tiny_tokenizer(), place / "bank")
    return place, made, studio


@pytest.mark.parametrize("name", EXACT | RENAMED)
def test_a_plain_lora_is_what_it_is_with_peft(name, shelf):
    place, made, studio = shelf
    assert made.refused.get(slug(name)) is None
    folder = place / slug("plain" if name in RENAMED else name)
    with torch.inference_mode():
        mine = studio.model(IDS, plan=Override.solo(slug(name))).logits
        base = make_tiny_base()
        if name == "a base without its head":
            base.model = PeftModel.from_pretrained(copy.deepcopy(base.model), folder)
            theirs = base(IDS).logits
        else:
            theirs = PeftModel.from_pretrained(base, folder).eval()(IDS).logits
        plain = make_tiny_base()(IDS).logits
    assert (mine - theirs).abs().max() < 2e-5
    assert ((theirs - plain).abs().max() > 1e-2) == (name != "zero B")


@pytest.mark.parametrize("name", REFUSED)
def test_another_kind_is_refused_in_one_sentence_that_says_what_to_do(name, shelf):
    _, made, _ = shelf
    message = made.refused[slug(name)]
    assert message.endswith(".")
    assert ". " not in message
    assert len(message) < 700
    assert re.search(REFUSED[name][1], message)
