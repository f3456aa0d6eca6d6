"""One base of each mechanism that sets architectures apart; `make models` checks all of them."""

import pytest

from lmoe_studio.errors import BaseModelError
from zoo.checks import CHECKS, ROOM, keep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]

MECHANISMS = {
    "llama": "nothing special",
    "gpt2": "weights the other way round, no limit by its usual name",
    "opt": "a linear layer that reads [tokens, d]",
    "deepseek_v3": "a linear layer that reads [batch, 1, seq, d]",
    "gemma3n_text": "blocks that read [stream, batch, seq, d]",
    "bamba": "positions have to be given under a cache",
    "mamba": "a cache without a length, which one token at a time goes on from",
    "jamba": "weights that are read and not called",
    "bloom": "no limit of its length, no positions",
    "glm4_moe": "fused experts, beside linear layers of the names that their weights once had",
    "gpt_oss": "fused experts the other way round, with biases and a gate of their own",
    "gemma3": "a wrapper that reads images, sliding windows",
}
QUICK = ("solo", "bypass", "greedy", "cached", "padded", "merged", "folded")


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_base_of_each_mechanism_is_exact(name, tmp_path):
    kept = keep(name, tmp_path)
    found = {check: CHECKS[check](kept) for check in QUICK}
    assert {check: apart for check, apart in found.items() if apart > ROOM.get(check, 0)} == {}


@pytest.mark.parametrize("name", ["llama", "gemma3", "glm4_moe"])
def test_training_and_tracing_run(name, tmp_path):
    kept = keep(name, tmp_path)
    assert CHECKS["traced"](kept) <= ROOM["traced"]
    CHECKS["trained"](kept)


@pytest.mark.parametrize("name", ["t5", "bart", "rwkv"])
def test_what_is_no_decoder_is_refused_before_anything_is_written(name, tmp_path):
    with pytest.raises(BaseModelError, match=rf"\({name}\) .*decoder-only language models"):
        keep(name, tmp_path)
    assert not list(tmp_path.glob("bank*"))
