"""Training on a tiny model: it learns, it separates, it repeats, and it leaves the base alone."""

from itertools import pairwise

import pytest
import torch
from training_runs import same, tensors_of

from lmoe_studio.errors import ConfigError, StorageError, TrainingError
from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.events import (
    DataReady,
    EvalDone,
    Finished,
    StepDone,
    event_from_dict,
    event_to_dict,
)
from lmoe_studio.training.run import run_training
from lmoe_studio.training.start import starting_bank


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]


def test_a_bank_is_trained_and_beats_the_base_on_every_skill(base, config, ids):
    before = base.model(ids).logits
    events = []
    bank = run_training(config, events.append, base=base)
    assert [event.step for event in of_kind(events, StepDone)] == list(range(1, 31))
    final = of_kind(events, EvalDone)[-1]
    assert final.final
    assert all(final.bank[name] < final.base[name] for name in ("vowels", "digits"))
    assert events[-1] == Finished(str(config.out), 30)
    assert torch.equal(base.model(ids).logits, before)
    report = load_bank(config.out).training
    assert report is not None
    assert report["held_out"]["bank"] == final.bank
    assert max(report["specialisation"]["information"]) > 0.5
    assert report["config"]["skills"][0]["train"] == [
        f"{config.out.parent.name}/vowels-train.jsonl"
    ]
    assert "vowels" in (config.out / "README.md").read_text()
    assert bank.expert_names == ("vowels", "digits")
    assert not config.out.with_name("bank.run").exists()


def test_the_usual_alpha_makes_up_for_what_the_weights_begin_at(changed):
    assert changed().scale == 1.5 * 2
    assert changed(router={"activation": "sigmoid"}).scale == 16
    assert changed(rank=4, alpha=8).scale == 2


def test_supervision_tells_sigmoid_experts_apart(base, changed):
    events = []
    bank = run_training(changed(router={"activation": "sigmoid"}), events.append, base=base)
    assert max(bank.training["specialisation"]["information"]) > 0.2
    for event in of_kind(events, StepDone):
        assert sum(event.shares.values()) == pytest.approx(1, abs=1e-5)


def test_events_say_what_happens_and_survive_json(base, changed):
    events = []
    run_training(changed(steps=6, eval_every=2, checkpoint_every=3), events.append, base=base)
    assert [event_from_dict(event_to_dict(event)) for event in events] == events
    [data] = of_kind(events, DataReady)
    assert [skill.texts for skill in data.skills] == [40, 40]
    assert [event.step for event in of_kind(events, EvalDone)] == [0, 2, 4, 6, 6]
    for event in of_kind(events, StepDone):
        assert sum(event.shares.values()) == pytest.approx(1, abs=1e-5)
        assert [group.layers for group in event.health] == ["0", "1", "2"]
        assert event.loss == pytest.approx(
            event.language_loss + 0.01 * event.balance_loss + 0.001 * event.z_loss
            + 0.3 * max(0, 1 - (event.step - 1) / (6 * 0.6)) * event.skill_loss, abs=1e-4,
        )  # fmt: skip
    left = [event.seconds_left for event in of_kind(events, StepDone)]
    assert left[-1] == 0


def test_the_same_seed_gives_the_same_bank(base, config, changed):
    banks = [run_training(changed(steps=5), base=base) for _ in range(2)]
    assert same(*banks)
    assert not same(
        banks[0],
        run_training(changed(steps=5, seed=1, out=str(config.out.with_name("other"))), base=base),
    )


@pytest.mark.parametrize("scope", ["shared", "module"])
def test_every_scope_trains_with_checkpointing_and_accumulation(base, changed, scope):
    bank = run_training(
        changed(
            steps=2, gradient_checkpointing=True, gradient_accumulation=2, router={"scope": scope}
        ),
        base=base,
    )
    assert any(tensor.abs().sum() > 0 for tensor in bank.router_state.values())


@pytest.mark.parametrize("composition", ["output", "factor"])
def test_only_what_the_mode_says_is_trained(base, changed, tmp_path, composition):
    joint = run_training(changed(steps=3, composition=composition), base=base)
    save_bank(joint, tmp_path / "start")
    values = changed(steps=3).model_dump(mode="json", exclude={"rank"})
    runs = {}
    for mode in ("router", "experts", "joint"):
        settings = values | {"mode": mode, "bank": str(tmp_path / "start"), "seed": 5,
                             "out": str(tmp_path / mode)}  # fmt: skip
        runs[mode] = run_training(TrainingConfig.parse(settings, source="config"), base=base)

    def changes(bank):
        experts, routers = 2 * len(joint.modules) * 2, len(joint.router_state)
        pairs = list(zip(tensors_of(joint), tensors_of(bank), strict=True))
        differ = [not torch.equal(a, b) for a, b in pairs]
        assert len(differ) == experts + routers
        return any(differ[:experts]), any(differ[experts:])

    assert changes(runs["router"]) == (False, True)
    assert changes(runs["experts"]) == (True, False)
    assert changes(runs["joint"]) == (True, True)
    assert all(bank.composition == composition for bank in runs.values())


def test_experts_train_under_a_fixed_blend(base, changed):
    blend = {"kind": "blend", "blend": {"vowels": 0.5, "digits": 0.5}}
    bank = run_training(changed(steps=3, mode="experts", router=blend), base=base)
    assert bank.router_state == {}
    assert all(f.b.abs().sum() > 0 for e in bank.experts for f in e.adapter.factors.values())


def test_a_router_over_another_banks_experts_may_have_skills_of_other_names(
    base, changed, tmp_path
):
    save_bank(starting_bank(changed(), base.identity), tmp_path / "start")
    options = {"mode": "router", "bank": str(tmp_path / "start"), "steps": 2}
    values = changed().model_dump(mode="json", exclude={"rank"}) | options
    values["skills"][0]["name"] = "letters"
    with pytest.raises(ConfigError, match=r"no expert 'letters'; .*vowels.* skill_loss to 0"):
        run_training(TrainingConfig.parse(values, source="config"), base=base)
    run_training(TrainingConfig.parse(values | {"skill_loss": 0}, source="config"), base=base)


def test_one_lora_may_learn_all_skills_from_the_batches_of_a_mixture(base, changed, tmp_path):
    skills = changed().model_dump(mode="json")["skills"]
    one = changed(skills=skills[:1], mode="experts", router={"kind": "uniform"})
    save_bank(starting_bank(one, base.identity), tmp_path / "start")
    options = {"mode": "experts", "bank": str(tmp_path / "start"), "skill_loss": 0, "steps": 12,
               "router": {"kind": "uniform"}}  # fmt: skip
    values = changed().model_dump(mode="json", exclude={"rank"}) | options
    bank = run_training(TrainingConfig.parse(values, source="config"), base=base)
    assert (bank.expert_names, bank.router_state) == (("vowels",), {})
    found = bank.training["held_out"]
    assert all(found["bank"][name] < found["base"][name] for name in ("vowels", "digits"))


def test_training_stops_early_and_keeps_the_best(base, changed):
    events = []
    # A learning rate that overshoots: the held-out loss gets worse after a while.
    config = changed(
        steps=60, eval_every=1, learning_rate=0.3, early_stopping=3, warmup=0, eval_sequences=6
    )
    bank = run_training(config, events.append, base=base)
    evaluations = [event for event in of_kind(events, EvalDone) if not event.final]
    means = [event.mean for event in evaluations[1:]]
    best = means.index(min(means)) + 1
    assert evaluations[-1].step < 60
    assert events[-1].step == best == evaluations[-1].step - 3
    assert bank.training["step"] == best
    assert of_kind(events, EvalDone)[-1].mean == pytest.approx(min(means), abs=1e-3)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_what_is_kept(base, changed):
    config = changed(steps=20, checkpoint_every=1)
    passes = iter(range(1000))

    def overflow(module, inputs, logits):
        return logits * torch.inf if base.model.training and next(passes) >= 3 else logits

    with (
        base.model.lm_head.register_forward_hook(overflow),
        pytest.raises(TrainingError, match=r"diverged at step 4: .* lower learning rate"),
    ):
        run_training(config, base=base)
    assert not config.out.exists()
    kept = sorted(p.name for p in config.out.with_name("bank.run").glob("checkpoints/*"))
    assert kept == ["checkpoint-2", "checkpoint-3"]


def test_the_health_of_a_collapsed_router_is_seen(base, changed):
    events = []
    options = {"balance_loss": 0, "skill_loss": 0, "router_learning_rate": 0.5, "steps": 40}
    skills = changed().model_dump(mode="json")["skills"]
    skills[1]["train"] = skills[0]["train"]  # one kind of text: the router takes one expert
    run_training(changed(**options, skills=skills), events.append, base=base)
    shares = [max(event.shares.values()) for event in of_kind(events, StepDone)]
    healths = [{group.health for group in event.health} for event in of_kind(events, StepDone)]
    assert healths[0] == {"good"} or shares[0] < 0.8
    assert all(("good" in health) == (share < 0.8) for health, share in zip(healths, shares, strict=True)
               if len(health) == 1)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepps": 3}, "unknown option 'stepps', did you mean 'steps'"),
        ({"rank": 0}, "rank: "),
        ({"rank": 5000}, "rank: .*1024"),
        ({"learning_rate": 3}, "learning_rate: "),
        ({"learning_rate": float("nan")}, "learning_rate: "),
        ({"skills": []}, "skills: "),
        ({"mode": "router"}, "name their bank in `bank`"),
        ({"bank": "demo"}, "rank: the experts of `bank` have their own"),
        ({"router": {"scop": "layer"}}, "unknown option 'router.scop', did you mean 'scope'"),
        ({"router": {"kind": "uniform"}}, "nothing to learn"),
        (
            {"mode": "experts", "router": {"kind": "arrow", "scope": "module"}},
            "arrow router follows",
        ),
        ({"target_modules": ["qq_proj"]}, "no linear layer named qq_proj"),
    ],
)
def test_a_bad_config_is_refused_in_one_sentence(base, config, change, message):
    values = config.model_dump(mode="json") | change
    with pytest.raises(ConfigError, match=message) as error:
        run_training(TrainingConfig.parse(values, source="config.yaml"), base=base)
    assert "\n" not in str(error.value)


def test_two_skills_cannot_have_one_name(config):
    values = config.model_dump(mode="json")
    values["skills"][1]["name"] = "vowels"
    with pytest.raises(ConfigError, match="two skills are named 'vowels'"):
        TrainingConfig.parse(values, source="config.yaml")


def test_a_config_survives_a_file(config, tmp_path):
    for name in ("again.yaml", "again.json"):
        config.write(tmp_path / name)
        again = TrainingConfig.read(tmp_path / name)
        assert again == config.model_copy(update={"skills": again.skills, "out": again.out})
        assert again.out.resolve() == config.out.resolve()


def test_memory_that_runs_out_gives_advice(base, changed, monkeypatch):
    config = changed(steps=6, checkpoint_every=2)
    count = iter(range(1000))
    forward = base.model.forward

    def hungry(*args, **kwargs):
        if base.model.training and next(count) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(*args, **kwargs)

    monkeypatch.setattr(base.model, "forward", hungry)
    advice = "batch_size 4 .*batch_size 2 with gradient_accumulation 2"
    with pytest.raises(TrainingError, match=advice):
        run_training(config, base=base)
    kept = sorted(p.name for p in config.out.with_name("bank.run").glob("checkpoints/*"))
    assert kept == ["checkpoint-2", "checkpoint-4"]
    monkeypatch.undo()
    whole = run_training(config, base=base)
    assert same(whole, run_training(config, base=base))


def test_pairs_of_losses_fall(base, changed):
    events = []
    run_training(changed(steps=30, schedule="constant"), events.append, base=base)
    means = [event.mean for event in of_kind(events, EvalDone)][:-1]
    assert means[-1] < means[0]
    assert sum(b < a for a, b in pairwise(means)) > len(means) / 2


def test_nothing_that_is_there_gives_way_to_a_bank(base, config, changed):
    config.out.mkdir(parents=True)
    first = run_training(config, base=base)  # an empty folder is free
    assert same(first, run_training(config, base=base))  # what it has made itself too
    written = {path: path.read_bytes() for path in config.out.rglob("*.*")}
    other = changed(learning_rate=0.02)
    with pytest.raises(StorageError, match=r"holds a bank already, and not one of this config"):
        run_training(other, base=base)
    assert {path: path.read_bytes() for path in written} == written
    assert not config.out.with_name("bank.run").exists()
    changed_bank = run_training(other, base=base, fresh=True)
    assert not same(first, changed_bank)
    data = config.skills[0].train[0]
    for out in (data, data.parent):
        before = sorted(data.parent.rglob("*"))
        with pytest.raises(StorageError, match="is no bank, so no bank is written there"):
            run_training(changed(out=str(out)), base=base, fresh=True)
        assert sorted(data.parent.rglob("*")) == before


def test_longer_sequences_than_the_base_reads_are_refused(base, changed):
    with pytest.raises(ConfigError, match=r"sequence_length: 4,096 tokens are more than the 128"):
        run_training(changed(sequence_length=4096), base=base)


def test_one_file_needs_no_list(changed):
    skills = changed().model_dump(mode="json")["skills"]
    listed = changed(skills=skills).skills[0].train
    skills[0]["train"] = skills[0]["train"][0]
    assert changed(skills=skills).skills[0].train == listed
