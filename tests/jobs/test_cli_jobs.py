"""`lmoe jobs`, run as a person runs it, while another training holds the turn."""

import json
import shutil
import subprocess
import sys

import pytest
from job_processes import until
from tiny_models import make_bank, make_tiny_base

from lmoe_studio.experts.files import save_bank
from lmoe_studio.jobs.job import JobState
from lmoe_studio.locks import is_locked
from lmoe_studio.training.events import EvalDone, Finished, Message

pytestmark = pytest.mark.usefixtures("busy")


@pytest.fixture
def file(config, tmp_path):
    return tmp_path / "config.yaml"


def ended(jobs, state, reason=None):
    """A job with some events that has come to an end."""
    jobs._store.add("abcde", "mine", 20)
    for event in (Message("Reading"), EvalDone(20, {"a": 2.0}, {"a": 1.5}, final=True),
                  Finished("somewhere", 20)):  # fmt: skip
        jobs._store.add_event("abcde", event)
    jobs._store.finish("abcde", state, reason)


def test_start_prints_the_id_and_the_job_goes_through_its_states(lmoe, jobs, file):
    code, out, err = lmoe("jobs", "start", file, "--name", "mine", "--steps", 7)
    assert code == 0, err
    id = out.strip()
    assert f"`lmoe jobs watch {id}`" in err
    until(lambda: jobs.get(id).pid)
    [listed] = json.loads(lmoe("jobs", "list", "--json")[1])
    assert (listed["id"], listed["name"], listed["state"]) == (id, "mine", "queued")
    assert (listed["step"], listed["steps"]) == (0, 7)
    assert "queued" in lmoe("jobs", "list")[1]
    code, out, err = lmoe("jobs", "show", id[:4])
    assert "state    queued" in out
    assert json.loads(lmoe("jobs", "show", id, "--json")[1])["folder"] == str(jobs.get(id).folder)
    assert lmoe("jobs", "cancel", id)[0] == 0
    until(lambda: not is_locked(jobs.get(id).folder / "lock"))
    assert lmoe("jobs", "resume", id)[0] == 0
    assert jobs.get(id).state is JobState.QUEUED
    lmoe("jobs", "cancel", id)
    until(lambda: not is_locked(jobs.get(id).folder / "lock"))
    assert lmoe("jobs", "remove", id)[0] == 0
    assert json.loads(lmoe("jobs", "list", "--json")[1]) == []


def test_start_can_print_json_and_keep_copies(lmoe, jobs, file):
    code, out, _ = lmoe("jobs", "start", file, "--json", "--copy-data")
    assert code == 0
    job = jobs.get(json.loads(out)["id"])
    assert (job.folder / "data" / "vowels").is_dir()
    lmoe("jobs", "cancel", job.id)


def test_start_first_lets_those_go_on_that_waited_before(lmoe, jobs, config, file):
    jobs._store.add("abcde", "earlier", 20)
    folder = jobs._store.folder("abcde")
    folder.mkdir(parents=True)
    config.model_copy(update={"name": "earlier"}).write(folder / "config.json")
    id = lmoe("jobs", "start", file)[1].strip()
    assert jobs.get("abcde").state is JobState.QUEUED
    assert jobs._store.queue() == ["abcde", id]
    for job in ("abcde", id):
        lmoe("jobs", "cancel", job)


def test_watch_shows_what_a_job_told_and_ends_with_it(lmoe, jobs):
    ended(jobs, JobState.DONE)
    code, out, err = lmoe("jobs", "watch", "abcde")
    assert (code, out) == (0, "")
    assert "Held-out loss" in err
    assert "Job abcde is done." in err


def test_watch_ends_badly_where_the_job_did(lmoe, jobs):
    ended(jobs, JobState.FAILED, "texts.jsonl, line 3: no JSON.")
    code, _, err = lmoe("jobs", "watch", "abcde")
    assert code == 1
    assert err.endswith("Error: Job abcde is failed: texts.jsonl, line 3: no JSON.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["start", "no-such.yaml"], "no-such.yaml cannot be read"),
        (["start", "FILE", "--name", "demo"], "'demo' is a bank of the Studio itself"),
        (["start", "FILE", "--name", "../up"], "name: "),
        (["start", "FILE", "--steps", "0"], "steps: "),
        (["show", "abcdf"], "did you mean 'abcde' (mine)?"),
        (["watch", "nothing"], "There is no job 'nothing'"),
        (["cancel", "abcde"], "is done; only a job that lives can be cancelled"),
        (["resume", "abcde"], "is done; start a new one"),
        (["remove", "x"], "There is no job 'x'"),
    ],
)
def test_a_mistake_ends_in_one_sentence(lmoe, jobs, file, arguments, message):
    ended(jobs, JobState.DONE)
    code, out, err = lmoe("jobs", *[file if a == "FILE" else a for a in arguments])
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert len(err.strip().splitlines()) == 1, err
    assert message in err


def test_every_command_has_help_with_an_example(lmoe):
    for command in ("start", "list", "show", "watch", "cancel", "resume", "remove"):
        code, out, _ = lmoe("jobs", command, "--help")
        assert code == 0
        assert "Example" in out


def test_a_finished_bank_is_shown_by_its_folder_until_it_is_gone(lmoe, jobs, home):
    ended(jobs, JobState.DONE)
    bank = save_bank(make_bank(make_tiny_base()), home / "banks" / "mine")
    assert json.loads(lmoe("jobs", "show", "abcde", "--json")[1])["bank"] == str(bank)
    assert lmoe("inspect", "mine")[0] == 0
    shutil.rmtree(bank)
    assert json.loads(lmoe("jobs", "show", "abcde", "--json")[1])["bank"] is None


def test_no_command_but_the_work_itself_waits_for_torch(home):
    check = (
        "import sys; from typer.testing import CliRunner; from lmoe_studio.cli import app; "
        "result = CliRunner().invoke(app, ['jobs', 'list', '--json']); assert result.output == '[]\\n'; "
        "import lmoe_studio; lmoe_studio.Jobs, lmoe_studio.JobState, lmoe_studio.TrainingConfig; "
        "assert not {'torch', 'transformers'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
