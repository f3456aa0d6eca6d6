"""Routers that learn from a text for a moment: the published step, what is kept, and the way back."""

import math
import threading

import pytest
import torch
from mechanisms.test_wemoe import GATE, token_scores
from mechanisms.vectors import cases, same
from tiny_models import ROUTERS, make_tiny_studio

from lmoe_studio.errors import (
    ConfigError,
    DataError,
    LMoEError,
    OverflowedError,
    PlanError,
    TextError,
)
from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.routing.pooling import pooled
from lmoe_studio.routing.registry import router_class
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.training.adapt import adapt, entropies

TEXTS = ["SELECT name FROM users WHERE id = 3;", "il fait beau aujourd'hui", "2"]
LEARNED = [one for one in ROUTERS if router_class(one.kind).learned]


def parameters_of(studio):
    return {name: one.detach().clone() for name, one in studio.model.named_parameters()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_the_published_step():
    sequence, case = cases("wemoe")["sequence"]["inputs"], cases("wemoe")["adaptation"]
    gate = {name: sequence["gate"][name].clone().requires_grad_() for name in GATE}

    def loss():
        scores = token_scores(sequence["hidden"], gate)
        every = torch.ones(scores.shape[:2], dtype=torch.bool)
        weights = pooled(scores, every, "prompt", {})[0][:, 0]
        mixed = {
            name: base + torch.einsum("bn,n...->b...", weights, sequence["deltas"][name])
            for name, base in sequence["base"].items()
        }
        inner = torch.einsum("bsd,bfd->bsf", sequence["hidden"], mixed["w1"]) + mixed["b1"][:, None]
        y = torch.einsum("bsf,bdf->bsd", inner.relu(), mixed["w2"]) + mixed["b2"][:, None]
        return entropies(y @ case["inputs"]["head"].T).mean()

    found, expected = loss(), case["outputs"]
    same(found.detach(), torch.tensor(expected["loss"], dtype=torch.float64))
    adam = torch.optim.Adam(gate.values(), lr=case["inputs"]["learning_rate"])
    found.backward()
    for name in GATE:
        same(gate[name].grad, expected["gradients"][name])
    adam.step()
    for name in GATE:
        same(gate[name].detach(), expected["after_one_adam_step"][name])
    same(loss().detach(), torch.tensor(expected["loss_after"], dtype=torch.float64))


@pytest.mark.parametrize("objective", ["entropy", "language"])
@pytest.mark.parametrize("router", LEARNED, ids=str)
def test_every_router_that_learns_is_adapted_and_put_back(router, objective):
    studio = make_tiny_studio(router=router)
    before, trace, bank = parameters_of(studio), studio.trace(TEXTS[0]), studio.bank
    heard = []
    found = studio.adapt(
        TEXTS, objective=objective, steps=3, learning_rate=1e-3, on_step=heard.append
    )
    assert [one.step for one in heard] == [1, 2, 3]
    assert list(found.frame["held_out_loss"][1:]) == [one.held_out_loss for one in heard]
    assert all(math.isfinite(one.loss) for one in heard)
    assert found.after.held_out_loss == found.frame["held_out_loss"].min()
    assert found.frame["objective"].unique() == [objective]
    after = parameters_of(studio)
    for name in before:
        assert name.startswith("routers.") or torch.equal(after[name], before[name]), name
    assert_same(studio.bank.router_state, found.state)
    assert_same(studio.model.to_bank().router_state, found.state)
    assert all(one.grad is None for one in studio.model.parameters())
    studio.undo_adaptation()
    assert_same(parameters_of(studio), before)
    assert_same(studio.bank.router_state, bank.router_state)
    again = studio.trace(TEXTS[0])
    assert (again.routing_weights == trace.routing_weights).all()
    assert (again.logprobs[1:] == trace.logprobs[1:]).all()


def test_what_it_learns_from_gets_likelier_and_several_are_undone_at_once():
    studio = make_tiny_studio()
    before = parameters_of(studio)
    found = studio.adapt(TEXTS[:1], objective="language", steps=10, learning_rate=1e-2)
    losses = found.frame["loss"]
    assert losses.iloc[-1] < losses.iloc[1]
    studio.adapt(TEXTS[1:], objective="entropy", steps=2)
    studio.undo_adaptation()
    studio.undo_adaptation()
    assert_same(parameters_of(studio), before)


def test_a_step_is_kept_only_where_what_is_held_out_gets_likelier():
    studio = make_tiny_studio()
    before = parameters_of(studio)
    found = studio.adapt(TEXTS[:1], steps=4, learning_rate=1.0)
    frame = found.frame
    assert found.steps == frame["held_out_loss"].idxmin()
    if not found.steps:
        assert_same(parameters_of(studio), before)
    rerun = make_tiny_studio().adapt(TEXTS[:1], steps=max(found.steps, 1), learning_rate=1.0)
    assert rerun.after.held_out_loss == found.after.held_out_loss or not found.steps


def test_nothing_is_learned_from_what_is_held_out():
    studio = make_tiny_studio()
    ids = studio.tokenizer(TEXTS[0])["input_ids"]
    half = len(ids) - round(len(ids) / 2)
    other = [*ids[:half], *reversed(ids[half:])]
    found, changed = (adapt(studio.model, [text], steps=4) for text in (ids, other))
    assert list(found.frame["loss"][1:]) == list(changed.frame["loss"][1:])
    assert list(found.frame["held_out_loss"]) != list(changed.frame["held_out_loss"])


def test_texts_of_any_length_count_token_by_token():
    studio = make_tiny_studio()
    texts = [studio.tokenizer(text)["input_ids"] for text in (*TEXTS, "abc", "")]
    together = adapt(studio.model, texts, steps=1).before
    sums, count = [0.0, 0.0], 0
    for text in (text for text in texts if len(text) > 2):
        held = min(round(len(text) / 2), len(text) - 2)
        alone = adapt(studio.model, [text], steps=1).before
        sums[0] += alone.held_out_loss * held
        sums[1] += alone.held_out_entropy * held
        count += held
    expected = [one / count for one in sums]
    assert [together.held_out_loss, together.held_out_entropy] == pytest.approx(expected, rel=1e-4)


def test_it_stops_when_asked_and_keeps_what_was_best():
    studio = make_tiny_studio()
    before = parameters_of(studio)
    found = studio.adapt(TEXTS, should_stop=lambda: True)
    assert (found.steps, len(found.frame)) == (0, 1)
    assert_same(parameters_of(studio), before)


def test_a_listener_that_fails_leaves_the_routers_as_they_were():
    studio = make_tiny_studio()
    before = parameters_of(studio)
    with pytest.raises(ZeroDivisionError):
        studio.adapt(TEXTS, on_step=lambda _: 1 // 0)
    assert_same(parameters_of(studio), before)
    assert studio.trace("hello")


def test_the_adapted_bank_is_a_bank_and_the_old_one_stays(tmp_path):
    studio = make_tiny_studio()
    old = save_bank(studio.bank, tmp_path / "old")
    files = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    studio.adapt(TEXTS[:1], objective="language", steps=5, learning_rate=1e-2)
    saved = load_bank(save_bank(studio.bank, tmp_path / "new"))
    assert_same(saved.router_state, studio.bank.router_state)
    assert all(path.read_bytes() == content for path, content in files.items())


def test_no_text_that_is_being_written_has_its_routers_changed():
    studio = make_tiny_studio()
    stream = studio.stream("SELECT", max_new_tokens=6)
    next(stream)
    with pytest.raises(PlanError, match=r"the routers can be adapted between calls only"):
        studio.adapt(TEXTS)
    with pytest.raises(PlanError, match="an adaptation can be undone between calls only"):
        studio.undo_adaptation()
    stream.close()
    assert studio.adapt(TEXTS, steps=1)


def test_a_text_that_is_asked_for_meanwhile_is_written_by_the_new_routers():
    studio = make_tiny_studio()
    texts, threads = [], []

    def write():
        texts.append(studio.generate("SELECT", max_new_tokens=6).trace)

    def begin(_):
        threads.append(threading.Thread(target=write))
        threads[-1].start()

    studio.adapt(TEXTS[:1], objective="language", steps=3, learning_rate=1e-2, on_step=begin)
    for thread in threads:
        thread.join()
    expected = studio.generate("SELECT", max_new_tokens=6).trace
    assert len(texts) == 3
    for trace in texts:
        assert (trace.routing_weights == expected.routing_weights).all()


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        (["a"], {}, TextError, "No text has three tokens"),
        (["ab", "c"], {}, TextError, "No text has three tokens"),
        ([], {}, LMoEError, "."),
        ("no-such-file.txt", {}, DataError, "no-such-file.txt"),
        (TEXTS, {"objective": "loss"}, ConfigError, "objective"),
        (TEXTS, {"steps": 0}, ConfigError, "steps"),
        (TEXTS, {"learning_rate": math.nan}, ConfigError, "learning_rate"),
        (TEXTS, {"held_out": 1}, ConfigError, "held_out"),
        (TEXTS, {"step": 3}, ConfigError, "'step'"),
    ],
)
def test_mistakes(texts, options, error, message):
    with pytest.raises(error, match=message):
        make_tiny_studio().adapt(texts, **options)


def test_a_router_that_learns_nothing_or_a_folded_blend_is_refused():
    studio = make_tiny_studio(router=RouterSettings(kind="uniform"))
    with pytest.raises(ConfigError, match="Router 'uniform' of bank 'random' has nothing to learn"):
        studio.adapt(TEXTS)
    with studio.fold({"operation": "uniform"}), pytest.raises(PlanError, match="is folded"):
        studio.adapt(TEXTS)


def test_numbers_that_are_not_finite_are_said():
    studio = make_tiny_studio()
    with torch.no_grad():
        studio.model.routers[0].weight.fill_(math.nan)
    with pytest.raises(OverflowedError):
        studio.adapt(TEXTS)
