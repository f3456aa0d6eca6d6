"""Token types that are about texts, in passes of a whole model."""

import pytest
import torch
from tiny_models import make_bank, make_tiny_base, make_tiny_studio, make_tiny_tokenizer
from tolerances import ONE_PASS

from lmoe_studio.errors import PlanError, TextError
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.tracing.token_texts import TokenTexts

ROUTER = RouterSettings(
    kind="typed",
    options={
        "types": [
            {"name": "number", "tokens": {"regex": "[0-9]+"}, "experts": ["sql"]},
            {"name": "code", "tokens": {"text": "=a"}, "experts": ["prose", "math"]},
        ]
    },
)
TEXT, WRITTEN = "x=a1=", "a 22"
TYPES = [0, 2, 2, 1, 0, 2, 0, 1, 1]
"""The last `=` of the prompt is followed by its `a` only when that is written, which is too late."""


@pytest.fixture(scope="module")
def model():
    base = make_tiny_base()
    model = MixtureModel(base, make_bank(base, router=ROUTER)).eval()
    model.texts = TokenTexts(make_tiny_tokenizer()).parts
    return model


@pytest.fixture(scope="module")
def ids():
    return torch.tensor([make_tiny_tokenizer()(TEXT + WRITTEN)["input_ids"]])


@torch.no_grad()
def run(model, ids, *args, **options):
    return model(ids, *args, record=True, **options)


STEPS = torch.tensor([[-1] * len(TEXT) + list(range(len(WRITTEN)))])


def test_written_tokens_are_typed_as_they_come(model, ids):
    whole = run(model, ids, steps=STEPS)
    assert whole.routing.notes["type"][0, :, 0].tolist() == TYPES
    assert (whole.routing.weights[0, :, 0, 1:][torch.tensor(TYPES) == 1] == 0).all()
    cache = run(model, ids[:, : len(TEXT)], use_cache=True).past_key_values
    for place in range(len(TEXT), ids.shape[1]):
        here = slice(place, place + 1)
        part = run(model, ids[:, here], steps=STEPS[:, here], past_key_values=cache, use_cache=True)
        assert part.routing.notes["type"][0, :, 0].tolist() == TYPES[here]
        torch.testing.assert_close(part.logits, whole.logits[:, here], **ONE_PASS)


def test_padding_is_no_text(model, ids):
    alone = run(model, ids)
    batch = torch.cat([torch.full((1, 2), 9), ids], dim=1).repeat(2, 1)
    mask = torch.ones_like(batch)
    mask[0, :2] = 0
    out = run(model, batch, mask)
    assert torch.equal(out.routing.notes["type"][0, 2:], alone.routing.notes["type"][0])
    torch.testing.assert_close(out.logits[:1, 2:], alone.logits, **ONE_PASS)


def test_a_prompt_in_parts_is_refused(model, ids):
    cache = run(model, ids[:, :3], use_cache=True).past_key_values
    with pytest.raises(TextError, match="read the prompt in one pass"):
        run(model, ids[:, 3:], past_key_values=cache, use_cache=True)
    assert model.reads_whole_prompts


def test_without_texts_a_type_says_that_it_needs_them(ids):
    base = make_tiny_base()
    model = MixtureModel(base, make_bank(base, router=ROUTER)).eval()
    with pytest.raises(PlanError, match=r"number.* is about the tokens' texts"):
        run(model, ids)


def test_a_studio_knows_the_texts():
    studio = make_tiny_studio(router=ROUTER)
    trace = studio.trace("a 12")
    assert trace.notes["type"][:, 0].tolist() == [0, 0, 1, 1]
    written = studio.generate("1=a", max_new_tokens=3, seed=1, trace=True).trace
    assert written is not None
    assert written.notes["type"][:3, 0].tolist() == [1, 2, 2]
