"""Every kind of router that learns trains by the same run, and goes on bit for bit."""

import json

import pytest
import torch
from tiny_models import make_bank, make_tiny_base
from training_runs import losses_of, same, stopping_at

from lmoe_studio.errors import TrainingStopped
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.losses import skill_loss
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.training.config import OF_SHARES, TrainingConfig
from lmoe_studio.training.events import Message
from lmoe_studio.training.run import run_training
from lmoe_studio.training.start import starting_bank

LEARNED = [
    {"preset": "moa-sparse"},
    {"preset": "e-wemoe", "options": {"width": 8}},
    {"preset": "wemoe", "options": {"width": 8}, "pool": "prompt"},
    {"preset": "moiie"},
    {
        "preset": "smore",
        "options": {"levels": [{"experts": ["vowels", "digits"], "fan_out": 1}], "gate": "cosine"},
        "temperature": 0.1,
    },
    {"preset": "read-me"},
    {"kind": "pre", "scope": "tied"},
    {"pool": "prefix", "threshold": {"learned": False, "limit": 0.3, "rule": "margin"}},
]


def called(router):
    return router.get("preset") or router.get("kind") or router["pool"]


@pytest.fixture
def pairs(changed, tmp_path):
    """Skills of questions and answers."""
    skills = changed().model_dump(mode="json")["skills"]
    for skill in skills:
        letters = "abcdefgh" if skill["name"] == "vowels" else "01234567"
        rows = [{"prompt": letters[i:], "response": letters[:i]} for i in range(1, 8)]
        file = tmp_path / f"{skill['name']}-pairs.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        skill |= {"train": [str(file)], "held_out": []}
    return skills


@pytest.mark.parametrize("router", LEARNED, ids=called)
def test_it_learns_and_a_stopped_run_goes_on_bit_for_bit(base, changed, pairs, router):
    usual = changed().model_dump(mode="json", exclude=set(OF_SHARES))
    few = {"steps": 4, "checkpoint_every": 2, "eval_every": 4, "held_out_sequences": 1}
    config = TrainingConfig.parse(usual | few | {"skills": pairs, "router": router}, source="x")
    new = MixtureModel(
        base.model, starting_bank(config, base.identity), dtype=torch.float32, new_routers=True
    )
    begun = new.to_bank().router_state
    new.detach()
    events = []
    whole = run_training(config, events.append, base=base)
    differs = [name for name in begun if not torch.equal(begun[name], whole.router_state[name])]
    assert differs
    seen_before = config.router.pool == "prompt"
    said = [event.text for event in events if isinstance(event, Message)]
    assert any("routing has seen" in line for line in said) == seen_before
    assert ("routing has seen" in (config.out / "README.md").read_text()) == seen_before
    assert all(tensor.isfinite().all() for tensor in whole.router_state.values())
    seen, listen, should_stop = stopping_at(2)
    with pytest.raises(TrainingStopped):
        run_training(config, listen, should_stop=should_stop, base=base, fresh=True)
    resumed = []
    again = run_training(config, resumed.append, base=base)
    assert same(whole, again)
    assert losses_of(resumed) == losses_of(events)[len(seen) :]


def record(router, steps=None):
    model = MixtureModel(make_tiny_base(), make_bank(make_tiny_base(), router=router))
    routing = model(torch.arange(5, 17).view(2, 6), steps=steps, record=True).routing
    return model.routers[0], routing


def test_each_type_is_balanced_over_its_tokens_and_the_experts_it_may_use():
    types = [{"name": "answer", "tokens": "generated", "experts": ["prose", "math"]}]
    steps = torch.tensor([[-1, -1, 0, 1, 2, 3], [-1, -1, -1, -1, 0, 1]])
    router, routing = record(RouterSettings(kind="typed", options={"types": types}), steps)
    is_token = torch.ones(2, 6, dtype=torch.bool)
    is_token[1, 0] = False
    other, answer = router.balanced(routing.notes, is_token)
    assert (other.experts.tolist(), answer.experts.tolist()) == ([0, 1, 2], [1, 2])
    assert torch.equal(answer.tokens, steps >= 0)
    assert torch.equal(other.tokens, (steps < 0) & is_token)
    # Nobody is taught to use an expert whose door is closed to the token.
    allowed = router.allowed(routing.notes)
    skills = torch.zeros(2, dtype=torch.long)
    taught = skill_loss(routing.probs, skills, is_token, allowed)
    expected = -routing.probs[..., 0][other.tokens].log().sum(0) / is_token.sum()
    torch.testing.assert_close(taught, expected.mean())


def test_each_level_of_a_tree_is_balanced():
    levels = [{"experts": ["math"]}, {"experts": ["sql", "prose"]}]
    router, routing = record(RouterSettings(kind="tree", options={"levels": levels}))
    is_token = torch.ones(2, 6, dtype=torch.bool)
    groups = router.balanced(routing.notes, is_token)
    assert [group.experts.tolist() for group in groups] == [[2], [0, 1]]
    for group in groups:
        shares = routing.probs[..., group.experts].sum(-1)
        torch.testing.assert_close(shares, torch.ones_like(shares))
