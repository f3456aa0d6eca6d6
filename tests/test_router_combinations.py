"""Every kind of router in every place, with every activation and pooling that it allows.

A text read whole, in parts, token by token and beside another gives the same, and so on; with two
linear layers of each block mixed.
"""

from itertools import product

import pytest
import torch
from tiny_models import make_bank, make_tiny_base
from tolerances import ONE_PASS

from lmoe_studio.errors import ConfigError, TextError
from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.mixture.model import MixtureModel, attached_to
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.settings import RouterSettings

OPTIONS = {
    "linear": {},
    "mlp": {"form": "relu", "width": 6},
    "typed": {
        "types": [
            {"name": "begun", "tokens": [0, 3], "experts": ["sql", "prose"]},
            {"name": "asked", "tokens": {"start": 4}, "experts": ["prose", "math"]},
        ]
    },
    "tree": {
        "levels": [{"experts": ["prose"]}, {"experts": ["math", "sql"], "fan_out": 1}],
        "width": 4,
        "key": 3,
    },
    "pre": {"width": 8, "layers": 1},
    "knn": {"k": 5},
}


def combinations():
    scopes = ("layer", "shared", "module", "tied")
    activations, pools = ("softmax", "sigmoid", "identity"), ("token", "prefix", "prompt")
    for kind, scope, activation, pool in product(OPTIONS, scopes, activations, pools):
        values = {"kind": kind, "scope": scope, "activation": activation, "pool": pool}
        if kind == "linear" and scope != "tied":
            continue  # tiny_models.ROUTERS has them
        try:
            yield RouterSettings.parse(values | {"options": OPTIONS[kind]}, source="router")
        except ConfigError:
            continue


ALL = [  # one in three at once, which has every value of every setting; all before a release
    pytest.param(one, id=f"{one} {one.pool}", marks=[pytest.mark.release] if number % 3 else [])
    for number, one in enumerate(combinations())
]


@pytest.fixture(scope="module")
def base():
    return make_tiny_base()


@pytest.fixture
def model(base, request):
    bank = make_bank(base, ranks=(2, 2, 2), targets=("q_proj", "up_proj"), router=request.param)
    model = MixtureModel(base, bank).eval()
    yield model
    if attached_to(base) is model:
        model.detach()


def each(test):
    return pytest.mark.parametrize("model", ALL, indirect=True)(test)


IDS = torch.tensor([[7, 33, 100, 5, 61, 62], [9, 8, 200, 5, 5, 4]])


@torch.no_grad()
def run(model, ids=IDS, *args, **options):
    return model(ids, *args, record=True, **options)


@each
def test_a_text_in_parts_is_the_text_whole(model):
    whole = run(model)
    for cuts in ([3], [1, 2, 3, 4, 5]):
        if model.reads_whole_prompts:
            continue
        parts, cache = [], None
        for start, stop in zip([0, *cuts], [*cuts, 6], strict=True):
            parts.append(run(model, IDS[:, start:stop], past_key_values=cache, use_cache=True))
            cache = parts[-1].past_key_values
        logits = torch.cat([part.logits for part in parts], dim=1)
        weights = torch.cat([part.routing.weights for part in parts], dim=1)
        torch.testing.assert_close(logits, whole.logits, **ONE_PASS)
        torch.testing.assert_close(weights, whole.routing.weights, **ONE_PASS)


@each
def test_what_is_written_after_a_prompt_is_what_one_pass_over_both_gives(model):
    steps = torch.tensor([-1, -1, -1, 0, 1, 2]).expand_as(IDS)
    whole = run(model, steps=steps)
    cache = run(model, IDS[:, :3], use_cache=True).past_key_values
    for place in range(3, 6):
        here = slice(place, place + 1)
        part = run(model, IDS[:, here], steps=steps[:, here], past_key_values=cache, use_cache=True)
        torch.testing.assert_close(part.logits, whole.logits[:, here], **ONE_PASS)
        torch.testing.assert_close(part.routing.weights, whole.routing.weights[:, here], **ONE_PASS)


@each
def test_a_padded_text_in_a_batch_is_the_text_alone(model):
    alone = run(model, IDS[1:, :4])
    for here in (slice(2, None), slice(0, 4)):
        batch, mask = IDS.clone(), torch.ones_like(IDS)
        mask[1] = 0
        mask[1, here] = 1
        batch[1] = 0
        batch[1, here] = IDS[1, :4]
        out = run(model, batch, mask)
        torch.testing.assert_close(out.logits[1:, here], alone.logits, **ONE_PASS)
        torch.testing.assert_close(out.routing.weights[1:, here], alone.routing.weights, **ONE_PASS)


@each
def test_plans_and_replay(model):
    plain = run(model)
    nothing = RoutingPlan(
        [Override.bias({"sql": 3}, strength=0), Override.solo("math", strength=0)]
    )
    same = run(model, plan=nothing)
    assert torch.equal(same.logits, plain.logits)
    assert torch.equal(same.routing.weights, plain.routing.weights)
    replayed = run(model, routing_weights=plain.routing.weights)
    torch.testing.assert_close(replayed.logits, plain.logits, **ONE_PASS)
    for strength in (0.5, 1):
        biased = RoutingPlan([Override.bias({"sql": 20, "math": 20}, strength=strength)])
        weights = run(model, plan=biased).routing.weights
        assert weights.isfinite().all()
        if model.bank.router.kind == "typed":
            assert (weights[:, [0, 3], :, 2] == 0).all()
            assert (weights[:, 4:, :, 0] == 0).all()


@each
def test_training_moves_every_parameter_and_a_saved_bank_is_the_same_to_the_bit(model, tmp_path):
    out = model(IDS, record=True)
    routing = out.routing
    (out.logits.logsumexp(-1).mean() + (routing.weights * torch.rand(3)).sum()).backward()
    own = dict(model.routers.named_parameters())
    assert all(one.grad is not None and one.grad.isfinite().all() for one in own.values())
    save_bank(model.to_bank(), tmp_path / "bank")
    bank = load_bank(tmp_path / "bank")
    assert bank.router == model.bank.router
    expected = run(model)
    again = MixtureModel(model.detach(), bank).eval()
    assert torch.equal(run(again).logits, expected.logits)
    again.detach()


@pytest.mark.parametrize("model", [RouterSettings(kind="pre", scope="shared")], indirect=True)
def test_embeddings_alone_are_refused_where_a_router_reads_ids(model):
    embeddings = model.base.get_input_embeddings()(IDS)
    with pytest.raises(TextError, match="give input_ids"):
        model.base(inputs_embeds=embeddings)
    assert torch.equal(model.base(IDS).logits, run(model).logits)
