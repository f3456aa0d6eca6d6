"""Build the bases of the zoo, and write them as a person has them: a folder with a tokenizer."""

from pathlib import Path

import torch
from tiny_models import make_tiny_tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)

from zoo.archs import CONFIGS

_EYES = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=2,
    image_size=28, patch_size=14,
)  # fmt: skip
_ROPE = dict(rope_type="default", mrope_section=[2, 3, 3], rope_theta=10000.0)
WRAPPERS = {
    "gemma3": dict(
        text_config=dict(model_type="gemma3_text", **CONFIGS["gemma3_text"]),
        vision_config=dict(model_type="siglip_vision_model", **_EYES),
        mm_tokens_per_image=4,
    ),
    "qwen2_vl": dict(
        text_config=dict(**CONFIGS["qwen2"], rope_parameters=_ROPE),
        vision_config=dict(depth=4, embed_dim=32, hidden_size=64, num_heads=2, patch_size=14),
    ),
    "llava": dict(
        text_config=dict(model_type="llama", **CONFIGS["llama"]),
        vision_config=dict(model_type="clip_vision_model", **_EYES, projection_dim=32),
        image_token_index=300,
    ),
    "idefics3": dict(
        text_config=dict(model_type="llama", **CONFIGS["llama"]),
        vision_config=dict(**_EYES),
        image_token_id=300,
    ),
    "qwen3_5": dict(
        text_config=dict(model_type="qwen3_5_text", **CONFIGS["qwen3_5_text"]),
        vision_config=dict(
            depth=4, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=64,
            patch_size=14,
        ),
    ),
}  # fmt: skip
WITH_ENCODERS = {
    "t5": dict(
        vocab_size=320, d_model=64, d_kv=16, d_ff=96, num_layers=3, num_heads=4,
        decoder_start_token_id=0,
    ),
    "bart": dict(
        vocab_size=320, d_model=64, encoder_layers=3, decoder_layers=3,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=96,
        decoder_ffn_dim=96,
    ),
}  # fmt: skip
ALL = (*CONFIGS, *WRAPPERS, *WITH_ENCODERS)


def build(name: str) -> PreTrainedModel:
    """A base of some architecture, the same in every process."""
    torch.manual_seed(0)
    if name in WRAPPERS:
        config, auto = AutoConfig.for_model(name, **WRAPPERS[name]), AutoModelForImageTextToText
    elif name in WITH_ENCODERS:
        config, auto = AutoConfig.for_model(name, **WITH_ENCODERS[name]), AutoModelForSeq2SeqLM
    else:
        config, auto = AutoConfig.for_model(name, **CONFIGS[name]), AutoModelForCausalLM
    return auto.from_config(config, dtype=torch.float32).eval()


def write_base(name: str, folder: Path) -> Path:
    build(name).save_pretrained(folder)
    make_tiny_tokenizer().save_pretrained(folder)
    return folder
