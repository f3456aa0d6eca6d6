"""The Train tab in a browser: a new bank from pasted texts, and the jobs that train one."""

import json
import os
import zipfile
from pathlib import Path
from unittest.mock import patch

import pytest
from page_server import served, source_of
from playwright.sync_api import expect
from tiny_models import make_tiny_studio
from train_page import HOSTILE, opened, set_option, started, state_is

from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.training.config import TrainingConfig

pytestmark = pytest.mark.slow


def row(page, at):
    return page.locator("#skills .row").nth(at)


def give(page, at, name, text):
    row(page, at).locator("input").first.fill(name)
    row(page, at).locator("textarea").fill(text)


def notice(page):
    return page.locator("#train-notice .panel")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An operator's folder."""
    data = tmp_path_factory.mktemp("operator") / "data"
    data.mkdir()
    (data / "pairs.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"{n} + {n}", "response": f"{2 * n}"}) + "\n" for n in range(40)
        )
        + '{"prompt": "nothing", "response": " "}\n'
    )
    return data


@pytest.fixture(scope="module")
def before_any_job(data, tiny_cache):
    """The page over a tiny model, on which no test starts a job."""
    home = data.parent / "home"
    source = source_of(make_tiny_studio())
    with (
        patch.dict(os.environ, LMOE_HOME=str(home), LMOE_CACHE=str(tiny_cache)),
        served(source, jobs=Jobs(home), data_folder=data) as address,
    ):
        yield address
        assert not Jobs(home).list()


@pytest.fixture
def form(open_page, before_any_job):
    return opened(open_page(before_any_job))


# The form


def test_at_first_two_blank_experts_and_what_a_job_is(form):
    assert form.locator("#skills .row").count() == 2
    assert "No job yet" in form.inner_text("#jobs-empty")
    assert form.locator("#jobs-box").count() == 0
    form.click("#start")
    notice(form).get_by_text("There is no expert yet").wait_for()


def test_experts_are_added_and_removed_with_the_keyboard_alone(form):
    form.get_by_label("Name of expert A").focus()
    form.keyboard.type("one")
    form.keyboard.press("Tab")
    form.keyboard.type("what it is for")
    form.get_by_role("button", name="Add an expert").focus()
    form.keyboard.press("Enter")
    form.keyboard.type("three")  # the new name has the focus
    assert form.get_by_label("Name of expert C").input_value() == "three"
    form.get_by_role("button", name="Remove expert B").focus()
    form.keyboard.press("Enter")
    assert [row(form, at).locator("input").first.input_value() for at in range(2)] == [
        "one",
        "three",
    ]
    for _ in range(10):
        form.get_by_role("button", name="Add an expert").click()
    assert form.get_by_role("button", name="Add an expert").is_disabled()
    assert form.locator("#skills .row").count() == 12


def test_a_preview_marks_what_is_only_read_and_counts_what_is_left_out(form):
    give(form, 0, "prose", "one text\n\nanother text\n\na third " + HOSTILE)
    row(form, 1).get_by_role("button", name="From the folder").click()
    row(form, 1).locator("input").first.fill("pairs")
    form.get_by_label("Texts of expert B", exact=True).select_option(["pairs.jsonl"])
    form.click("#preview")
    form.wait_for_selector("#sequences .skill >> nth=1")
    prose, pairs = form.locator("#sequences .skill").all()
    assert "2 texts, 1 held out" in prose.inner_text()
    assert "1 blank" in pairs.inner_text()
    read = "".join(pairs.locator(".tok.read").all_inner_texts())
    assert " + " in read
    assert "</s>" not in read
    background = pairs.locator(".tok.read").first.evaluate(
        "n => getComputedStyle(n).backgroundImage"
    )
    assert "gradient" in background, "not by colour alone"
    assert form.evaluate("window.hit") is None


def test_texts_that_cannot_be_used_are_named_by_file_line_and_field(form):
    for text, sentence in (
        ('{"text": "a"}\n{"text": 7}', "The pasted text of 'one', line 2: 'text' is int, not text"),
        ('{"body": "a"}', "The pasted text of 'one', line 1: expected `text`"),
        ('{"text": "a"', "The pasted text of 'one', line 1: no JSON"),
        ("only one text", "has one text in the pasted text of 'one'; give it two or more"),
        ("", "Expert 'one' has no texts; paste some, or upload a file."),
    ):
        give(form, 0, "one", text)
        for button in ("#preview", "#start"):
            form.click(f"{button}:not([disabled])")
            notice(form).get_by_text(sentence).wait_for()
        assert "/tmp" not in notice(form).inner_text()
        assert form.locator("#jobs-box").count() == 0


def test_an_uploaded_file_is_checked_and_read(form):
    row(form, 0).get_by_role("button", name="Upload").click()
    row(form, 0).locator("input").first.fill("up")
    upload = form.get_by_label("File with the texts of expert A")
    upload.set_input_files({"name": "x.pdf", "mimeType": "x/y", "buffer": b"%PDF"})
    row(form, 0).get_by_text("x.pdf: expected .jsonl").wait_for()
    bad = b'{"text": "a"}\n{"text": null, "x": 1}\n{"text": [1]}\n'
    upload.set_input_files({"name": "my texts.jsonl", "mimeType": "x/y", "buffer": bad})
    row(form, 0).get_by_text("my texts.jsonl").wait_for()
    form.click("#preview")
    notice(form).get_by_text("my texts.jsonl, line 3: 'text' is list, not text.").wait_for()
    assert notice(form).inner_text().count("/") == 0


def test_a_preset_fills_its_options_and_a_change_is_of_no_preset(form):
    set_option(form, "seed", 5)
    form.get_by_role("radio", name="Small").check()
    assert form.input_value("#option-steps") == "120"
    assert form.input_value("#option-seed") == "5"
    set_option(form, "steps", 7)
    assert form.locator("#options input:checked[type=radio]").count() == 0
    set_option(form, "learning_rate", 3)
    form.click("text=fill in an example")
    form.click("#start")
    notice(form).get_by_text(
        "The form: learning_rate: Input should be less than or equal to 1"
    ).wait_for()


def test_a_choice_that_may_be_left_open_is_open_and_can_be_opened_again(form):
    assert form.input_value("#option-quantize") == ""
    field = form.locator("#option-quantize")
    set_option(form, "seed", 5)  # unfolds
    assert field.locator("option").all_inner_texts() == ["none", "4bit", "8bit"]
    field.select_option("4bit")
    form.reload()
    form.wait_for_selector("#run:not([disabled])")
    opened(form)
    assert form.input_value("#option-quantize") == "4bit"
    set_option(form, "seed", 6)
    form.locator("#option-quantize").select_option("none")
    assert form.input_value("#option-quantize") == ""


def test_a_reload_keeps_what_was_given(form):
    give(form, 0, "kept", "a text\nanother")
    form.fill("#bank-to-be", "my-own")
    set_option(form, "steps", 77)
    form.reload()
    form.wait_for_selector("#run:not([disabled])")
    opened(form)
    assert row(form, 0).locator("textarea").input_value() == "a text\nanother"
    assert form.input_value("#bank-to-be") == "my-own"
    assert form.input_value("#option-steps") == "77"


def test_the_form_as_a_file_and_a_command_and_back(form, tmp_path):
    form.click("text=fill in an example")
    form.fill("#bank-to-be", "packed")
    form.click("#as-file > .label-wrap")
    form.get_by_text("data/sql/pasted.txt").wait_for()
    assert form.input_value("#config-command textarea, #config-command input") == (
        "lmoe train packed.yaml"
    )
    with form.expect_download() as download:
        form.click("#config-download")
    assert download.value.suggested_filename == "packed.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path / "out")
    config = TrainingConfig.read(tmp_path / "out" / "packed.yaml")
    assert "customers" in config.skills[0].train[0].read_text()
    other = {
        "name": "other", "out": "x", "steps": 44,
        "skills": [{"name": "p", "train": ["pairs.jsonl"]}, {"name": "q", "train": ["/etc/passwd"]}],
    }  # fmt: skip
    load = form.locator("#config-load input")
    load.set_input_files(
        {"name": "other.yaml", "mimeType": "text/yaml", "buffer": json.dumps(other).encode()}
    )
    form.get_by_text("Give the texts again for q").wait_for()
    assert form.input_value("#bank-to-be") == "other"
    assert (
        row(form, 0).get_by_role("button", name="From the folder").get_attribute("aria-pressed")
        == "true"
    )
    assert row(form, 1).locator("textarea").input_value() == ""
    assert form.input_value("#option-steps") == "44"


# A real job


def test_two_pasted_datasets_become_a_bank_in_explore_which_others_see_too(
    real, open_page, browser
):
    page = open_page(real)
    other = open_page(real, context=browser.new_context())
    opened(page)
    started(page, 200, eval_every=50, checkpoint_every=100)  # long enough to be seen on its way
    page.wait_for_selector("#new-bank textarea", state="hidden")
    page.wait_for_selector("#job-head .says:has-text('About'), #job-head .job.done")
    opened_tab = other.locator("#training-status button")
    if opened_tab.count():  # a short run may be over already
        assert "my-bank: training step" in opened_tab.inner_text()
    state_is(page, "done")
    page.wait_for_selector("#job-loss svg path")
    expect(page.locator("#jobs")).to_contain_text("200/200")
    expect(page.locator("#job-details tr")).to_have_count(3)
    expect(page.locator("#job-details .lights li")).to_have_count(3)
    expect(page.locator("#job-details pre")).to_contain_text("wrote")
    page.click("[data-act=open]")
    page.locator("#bank h2").get_by_text("my-bank").wait_for()
    page.wait_for_selector("#run:not([disabled]) >> visible=true")
    page.fill("#prompt textarea", "SELECT name FROM t")
    page.click("#run")
    page.wait_for_selector(".tok")
    assert "french" in page.inner_text("#workbench")
    other.locator("#bank h2").get_by_text("my-bank").wait_for()
    other.click("#bank-name input")
    for name in ("first", "my-bank"):
        other.get_by_role("option", name=name, exact=True).wait_for()


def test_the_page_the_command_and_python_train_the_same(real, open_page, tiny_home, tmp_path, lmoe):
    page = opened(open_page(real))
    page.click("text=fill in an example")
    for name, value in {"steps": 6, "sequence_length": 32, "seed": 3, "router-top_k": 1}.items():
        set_option(page, name, value)
    page.click("#as-file > .label-wrap")
    with page.expect_download() as download:
        page.click("#config-download")
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path / "out")
    page.click("#start")
    page.wait_for_selector("#job-head .job")
    code, _, err = lmoe("train", tmp_path / "out" / "my-bank.yaml")
    assert code == 0, err
    state_is(page, "done")
    banks = [tiny_home / "banks" / "my-bank", tmp_path / "out" / "runs" / "my-bank"]
    for part in ("router.safetensors", "experts/sql/adapter_model.safetensors"):
        one, other = ((bank / part).read_bytes() for bank in banks)
        assert one == other, part
    one, other = (json.loads((bank / "training.json").read_text()) for bank in banks)
    assert one["held_out"] == other["held_out"]
    assert one["curve"] == other["curve"]


def test_the_operators_folder_is_the_only_path_a_visitor_can_name(form, data):
    """Also for a browser that says what it likes."""
    secret = data.parent / "secret.txt"
    secret.write_text("the secret\n\nof somebody\n\nelse")
    for value in (
        {"name": "x", "kind": "folder", "places": [str(secret)]},
        {"name": "x", "kind": "folder", "places": ["../secret.txt"]},
        {"name": "x", "kind": "file", "file": {"path": str(secret), "name": "secret.txt"}},
    ):
        form.evaluate(
            "(row) => localStorage.setItem('lmoe-studio-skills', JSON.stringify([row]))", value
        )
        form.reload()
        form.wait_for_selector("#run:not([disabled])")
        opened(form)
        form.click("#preview")
        notice(form).wait_for()
        assert "somebody" not in form.content()
    assert Path(secret).read_text().startswith("the secret")
