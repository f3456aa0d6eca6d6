"""Training on datasets: of a folder, of a repository, and given in Python."""

import json
import shutil

import datasets
import pytest
from training_runs import same, stopping_at

from lmoe_studio.errors import ConfigError, DataError, ResumeError, TrainingStopped
from lmoe_studio.jobs.folder import config_file
from lmoe_studio.jobs.prepare import check_files, fill
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.events import DataReady
from lmoe_studio.training.preview import preview
from lmoe_studio.training.run import run_training

CHAT = [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2 2 2 2"}]


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()


def rows_of(config, skill):
    file = config.skills[skill].train[0]
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def of_datasets(config, tmp_path):
    """The texts of the usual config: a saved dataset, and a repository with two splits."""
    saved = datasets.Dataset.from_list(rows_of(config, 0))
    saved.save_to_disk(tmp_path / "saved")
    repository = tmp_path / "repository"
    repository.mkdir()
    skill = config.skills[1]
    for split, [file] in (("train", skill.train), ("test", skill.held_out)):
        shutil.copy(file, repository / f"{split}.jsonl")

    def change(**options):
        skills = config.model_dump(mode="json")["skills"]
        skills[0]["train"] = "saved"
        skills[1]["train"] = {"dataset": "repository"}
        skills[1]["held_out"] = ["hf:repository,split=test"]
        values = config.model_dump(mode="json") | {"skills": skills, "steps": 6} | options
        return TrainingConfig.parse(values, source="config").relative_to(tmp_path)

    return change


def test_a_dataset_trains_what_its_rows_train_as_a_file(base, changed, of_datasets, tmp_path):
    told = []
    asked = of_datasets(out=str(tmp_path / "one"))
    one = run_training(asked, told.append, base=base)
    two = run_training(changed(steps=6, out=str(tmp_path / "two")), base=base)
    assert same(one, two)
    [ready] = [event for event in told if isinstance(event, DataReady)]
    repository = tmp_path / "repository"
    assert [line for skill in ready.skills for line in skill.sources] == [
        f"40 rows of {tmp_path / 'saved'}: column text",
        f"6 rows of {tmp_path / 'vowels-heldout.jsonl'}: column text",
        f"40 rows of {repository}: column text",
        f"6 rows of {repository}, split test: column text",
    ]
    report = json.loads((tmp_path / "one" / "training.json").read_text())
    assert report["config"]["skills"][0]["train"] == [f"{tmp_path.name}/saved"]
    assert report["config"]["skills"][1]["held_out"] == [
        {"dataset": f"./{tmp_path.name}/repository", "split": "test"}
    ]
    assert not (tmp_path / "one.run").exists()
    assert same(one, run_training(asked, base=base))  # the bank is its own


def stopped(config, base, step=3):
    _, listen, should_stop = stopping_at(step)
    with pytest.raises(TrainingStopped):
        run_training(config, listen, should_stop=should_stop, base=base)


def test_a_run_goes_on_with_the_rows_that_it_took(base, of_datasets, tmp_path):
    undisturbed = run_training(of_datasets(out=str(tmp_path / "whole")), base=base)
    config = of_datasets(checkpoint_every=2)
    stopped(config, base)
    (tmp_path / "repository" / "train.jsonl").write_text('{"text": "other"}\n' * 40)
    assert same(undisturbed, run_training(config, base=base))


def test_a_run_does_not_go_on_with_another_dataset(base, of_datasets, tmp_path):
    config = of_datasets(checkpoint_every=2)
    stopped(config, base)
    other = config.skills[1].model_copy(
        update={"train": (config.skills[1].train[0].model_copy(update={"take": 30}),)}
    )
    with pytest.raises(ResumeError, match="repository has another content"):
        run_training(config.model_copy(update={"skills": (config.skills[0], other)}), base=base)
    datasets.Dataset.from_list([{"text": "aeiou"}] * 40).save_to_disk(tmp_path / "saved")
    with pytest.raises(ResumeError, match="saved has another content"):
        run_training(config, base=base)


def with_object(changed, dataset, **options):
    skills = [dict(name="given", train=dataset), changed().skills[1]]
    return changed(steps=4, checkpoint_every=2, **options).model_copy(
        update={"skills": TrainingConfig(name="x", out="x", skills=skills).skills}
    )


def test_an_object_is_trained_on_and_another_one_is_noticed(base, changed, config):
    rows = rows_of(config, 0)
    one, again = (datasets.Dataset.from_list(rows) for _ in range(2))
    stopped(with_object(changed, one), base)
    with pytest.raises(ResumeError, match="Dataset given has another content"):
        run_training(with_object(changed, one.select(range(30))), base=base)
    bank = run_training(with_object(changed, again.to_iterable_dataset()), base=base)
    assert bank.expert_names == ("given", "digits")


@pytest.mark.parametrize("copy_data", [False, True])
def test_a_job_keeps_what_no_other_process_can_read(
    changed, config, of_datasets, tmp_path, copy_data
):
    given = with_object(changed, datasets.Dataset.from_list(rows_of(config, 0)))
    there = of_datasets()
    asked = given.model_copy(update={"skills": (given.skills[0], *there.skills)})
    check_files(asked)
    folder = tmp_path / "job"
    folder.mkdir()
    fill(folder, asked, copy_data=copy_data)
    kept = TrainingConfig.read(config_file(folder))
    inside = [
        getattr(source, "is_relative_to", lambda _: False)(folder)
        for skill in kept.skills
        for source in skill.train
    ]
    assert inside == [True, copy_data, copy_data]
    assert len(rows_of(kept, 0)) == 40
    reports = [one.report for one in preview(kept, _tokenizer())]
    assert [report.texts for report in reports] == [38, 40, 40]


def _tokenizer():
    from tiny_models import make_tiny_tokenizer

    return make_tiny_tokenizer()


def test_the_answer_alone_is_learned_of_every_layout(changed, tmp_path):
    tokenizer = _tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    rows = {
        "completion": {"prompt": "1+1?", "completion": "2 2 2 2"},
        "alpaca": {"instruction": "1+1?", "input": "", "output": "2 2 2 2"},
        "sharegpt": {"conversations": CHAT},
    }
    skills = [
        dict(name=name, train=datasets.Dataset.from_list([row] * 4), held_out=_other(tmp_path))
        for name, row in rows.items()
    ]
    config = TrainingConfig(name="x", out="x", skills=skills, template="chat", sequence_length=64)
    for shown in preview(config, tokenizer, count=1):
        [tokens] = shown.sequences
        learned = "".join(text for text, is_learned in tokens if is_learned)
        assert set(learned.replace("</assistant>", "").replace("</s>", "")) <= set("2 ")
        assert "2 2 2 2" in learned


def _other(tmp_path):
    file = tmp_path / "other.jsonl"
    file.write_text('{"text": "something else"}\n')
    return str(file)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"dataset": "user/name", "spilt": "x"}, r"spilt.*did you mean 'split'"),
        ({"dataset": "a b"}, "neither user/name on the hub nor a folder"),
        ("hf:user/name,take=no", "take: .*integer"),
        (7, "expected a file, a folder, hf:user/name or a dataset .* got int"),
    ],
)
def test_a_source_that_is_none_is_refused_in_one_sentence(changed, source, message):
    with pytest.raises(ConfigError, match=message):
        changed(skills=[{"name": "x", "train": [source]}])


def test_columns_that_are_none_are_named_with_the_dataset(tmp_path):
    dataset = datasets.Dataset.from_dict({"question": ["a"], "answer": ["b"]})
    config = TrainingConfig(name="x", out=tmp_path, skills=[dict(name="x", train=dataset)])
    with pytest.raises(DataError, match=r"the Dataset given.*got question, answer"):
        preview(config, _tokenizer())
    dataset.save_to_disk(tmp_path / "saved")
    config = TrainingConfig(name="x", out="x", skills=[dict(name="x", train=tmp_path / "saved")])
    with pytest.raises(DataError, match=r"saved.*got question, answer"):
        preview(config, _tokenizer())
