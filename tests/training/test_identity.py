"""Which runs are one run: the content of every file, in its order and place, and no more."""

import hashlib
import json
import shutil

import pytest
from training_runs import same, stopping_at

from lmoe_studio.errors import DataError, ResumeError, StorageError, TrainingStopped
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.events import Message, StepDone
from lmoe_studio.training.run import run_training


@pytest.fixture
def folders(config, tmp_path):
    """A config whose files have the same names in several folders."""
    skills = config.model_dump(mode="json")["skills"]
    for number, (skill, letters) in enumerate(zip(skills, ("abc", "123"), strict=True)):
        files = []
        for folder in ("one", "two"):
            file = tmp_path / str(number) / folder / "data" / "train.jsonl"
            file.parent.mkdir(parents=True)
            rows = [{"text": f"{folder} {letter} " * 12} for letter in letters * 3]
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            files.append(str(file))
        skill["train"] = files
    values = config.model_dump(mode="json") | {"skills": skills, "steps": 8, "checkpoint_every": 2}
    return TrainingConfig.parse(values, source="config")


def rewritten(config):
    file = config.skills[0].train[0]
    file.write_text(file.read_text().replace("a", "e"))
    return config, r"one/data/train.jsonl has another content"


def with_skills(config, change):
    skills = config.model_dump(mode="json")["skills"]
    change(*skills)
    return TrainingConfig.parse(
        config.model_dump(mode="json") | {"skills": skills}, source="config"
    )


def swapped_files(config):
    change = with_skills(config, lambda first, _: first["train"].reverse())
    return change, "train of skill 'vowels' has its files in another order"


def one_file_less(config):
    change = with_skills(config, lambda first, _: first["train"].pop())
    return change, "train of skill 'vowels' had 2 files, has 1"


def one_file_twice(config):
    change = with_skills(config, lambda first, _: first["train"].append(first["train"][0]))
    return change, "train of skill 'vowels' had 2 files, has 3"


def other_part(config):
    change = with_skills(config, lambda first, _: first["held_out"].append(first["train"][1]))
    return change, "held_out of skill 'vowels' had 1 files, has 2"


def swapped_skills(config):
    def swap(first, second):
        first["train"], second["train"] = second["train"], first["train"]

    return with_skills(config, swap), r"has another content"


def another_reader(config):
    file = config.skills[0].train[0]
    shutil.copy(file, file.with_suffix(".txt"))
    change = with_skills(
        config, lambda first, _: first["train"].__setitem__(0, str(file.with_suffix(".txt")))
    )
    return change, r"train.txt has another content"


OTHER_RUNS = [
    rewritten, swapped_files, one_file_less, one_file_twice, other_part, swapped_skills,
    another_reader,
]  # fmt: skip


def stopped_at(step, config, base):
    _, listen, should_stop = stopping_at(step)
    with pytest.raises(TrainingStopped):
        run_training(config, listen, should_stop=should_stop, base=base)


@pytest.mark.parametrize("change", OTHER_RUNS, ids=lambda one: one.__name__)
def test_a_run_does_not_go_on_with_other_data(base, folders, change):
    stopped_at(3, folders, base)
    other, message = change(folders)
    events = []
    with pytest.raises(ResumeError, match=message):
        run_training(other, events.append, base=base)
    assert not any(isinstance(event, StepDone) for event in events)


@pytest.mark.parametrize("change", OTHER_RUNS, ids=lambda one: one.__name__)
def test_a_finished_bank_stays_where_the_data_is_another(base, folders, change):
    folders = folders.model_copy(update={"steps": 2})
    bank = run_training(folders, base=base)
    assert same(bank, run_training(folders, base=base))  # the same may be made again
    written = {path: path.read_bytes() for path in folders.out.rglob("*.*")}
    other, _ = change(folders)
    with pytest.raises(StorageError, match="not one of this config and data"):
        run_training(other, base=base)
    assert {path: path.read_bytes() for path in written} == written


def test_where_the_files_lie_does_not_matter(base, folders, tmp_path):
    stopped_at(3, folders, base)

    def move(first, _):
        moved = shutil.move(first["train"][1], tmp_path / "renamed.jsonl")
        first["train"][1] = str(moved)

    events = []
    run_training(with_skills(folders, move), events.append, base=base)
    assert next(e.step for e in events if isinstance(e, StepDone)) == 4


def test_the_report_names_every_file(base, folders):
    bank = run_training(folders.model_copy(update={"steps": 1}), base=base)
    found = bank.training["data_sha256"]
    for skill in folders.skills:
        for part in ("train", "held_out"):
            files = getattr(skill, part)
            assert found[skill.name][part] == [
                {
                    "file": f"{file.parent.name}/{file.name}",
                    "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                }
                for file in files
            ]


def test_a_run_of_an_earlier_version_is_refused_in_a_sentence(base, folders):
    stopped_at(3, folders, base)
    file = folders.out.with_name("bank.run") / "run.json"
    begun = json.loads(file.read_text())
    del begun["format"]
    file.write_text(json.dumps(begun | {"data": {"data/train.jsonl": "0"}}))
    with pytest.raises(ResumeError, match=r"by another version of L-MoE Studio.*--fresh"):
        run_training(folders, base=base)


def test_a_run_that_was_begun_over_a_bank_and_saved_nothing_replaces_it_only_itself(
    base, folders, changed
):
    run_training(folders.model_copy(update={"steps": 2}), base=base)

    class Gone(Exception):
        pass

    def killed(event):
        if isinstance(event, StepDone):
            raise Gone

    with pytest.raises(Gone):
        run_training(folders, killed, fresh=True, base=base)
    with pytest.raises(StorageError, match="holds a bank already"):
        run_training(changed(steps=3), base=base)
    run_training(folders, base=base)


def test_data_that_changes_while_it_is_read_is_refused(base, folders):
    def rewrite(event):
        if isinstance(event, Message) and event.text.startswith("Reading"):
            rewritten(folders)

    with pytest.raises(DataError, match="changed while it was read"):
        run_training(folders, rewrite, base=base)
