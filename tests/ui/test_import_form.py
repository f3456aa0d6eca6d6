"""Importing adapters in a browser: from the sidebar to the bank, with what was refused and why."""

import shutil
import zipfile
from threading import Event

import pytest
from job_processes import until
from playwright.sync_api import expect
from tiny_models import make_bank, make_tiny_base, make_tiny_studio

from lmoe_studio.experts.files import save_bank
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.studio import available_banks
from lmoe_studio.ui.source import StudioSource

pytestmark = pytest.mark.slow


@pytest.fixture
def gate(monkeypatch):
    """Holds every import at its first step, unless it is open."""
    from lmoe_studio import importing

    gate, plain = Event(), importing.load_base
    gate.set()

    def load_base(base, **options):
        assert gate.wait(300)
        return plain(base, **options)

    monkeypatch.setattr(importing, "load_base", load_base)
    return gate


@pytest.fixture
def form(open_page, serving, tiny_home, tmp_path, gate):
    """The fold, opened from the sidebar; beside it an operator's folder with one adapter."""
    experts = save_bank(make_bank(make_tiny_base()), tmp_path / "bank") / "experts"
    shutil.copytree(experts / "math", tmp_path / "data" / "loras" / "math")
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as packed:
        for file in (*(experts / "sql").iterdir(), *(experts / "prose").iterdir()):
            packed.write(file, f"{file.parent.name}/{file.name}")
    (tmp_path / "broken.zip").write_bytes(b"PK nothing")
    shutil.copytree(experts / "sql", tmp_path / "folder" / "my sql!")
    (tmp_path / "folder" / "my sql!" / "optimizer.pt").write_bytes(b"x")
    studio = make_tiny_studio()
    source = StudioSource(lambda bank, tell: studio, available_banks)
    source.start("first")
    address = serving(source, jobs=Jobs(tiny_home), data_folder=tmp_path / "data")
    return opened(open_page(address))


def opened(page):
    page.click("#bank-import")
    page.wait_for_selector("#adapters .drop >> visible=true")
    return page


def give(page, *files, folder=False):
    page.locator("#adapters input[type=file]").nth(int(folder)).set_input_files(list(files))
    page.wait_for_function(
        "() => ![...document.querySelectorAll('#adapters .says')].some((one) => one.textContent === 'Uploading…')"
    )


def names(page):
    rows = page.locator("#adapters .list input")
    return [rows.nth(at).input_value() for at in range(rows.count())]


def test_adapters_of_all_places_become_a_bank_that_is_loaded_with_one_press(form, tmp_path):
    give(form, tmp_path / "both.zip", tmp_path / "broken.zip")
    give(form, tmp_path / "folder", folder=True)
    form.get_by_label("Folder of the server").select_option("loras/math")
    until(lambda: names(form) == ["both", "broken", "my-sql", "math"])
    form.locator("#adapters .list input").nth(2).fill("own")
    form.locator("#adapters").get_by_label("Name of the bank").fill("mine")
    form.locator("#adapters").get_by_label("Base model").fill("smollm2-135m-instruct")
    form.click("#import-start")
    form.locator("#import-notice").get_by_text("The bank mine is ready").wait_for()
    told = form.inner_text("#import-notice")
    for line in ("4 adapters became", "1 adapter could not", "broken.zip is no sound .zip file"):
        assert line in told
    form.get_by_role("tab", name="Explore").click()
    form.wait_for_timeout(4000)
    form.get_by_role("tab", name="Train").click()
    for line in told.splitlines()[-5:]:
        expect(form.locator("#import-notice")).to_contain_text(line)
    form.click("#import-load")
    form.wait_for_selector("#prompt >> visible=true")
    form.locator("#bank-name input").click()
    form.get_by_role("option", name="mine").wait_for()


def test_an_import_outlives_its_page_and_is_stopped_from_the_next(
    form, open_page, tmp_path, gate, tiny_home
):
    gate.clear()
    give(form, tmp_path / "both.zip")
    form.click("#import-start")
    form.locator("#import-notice progress").wait_for()
    address = form.url
    form.close()
    form = opened(open_page(address))
    form.locator("#import-notice progress").wait_for()
    until(lambda: names(form) == ["both"])
    form.click("#import-stop:not([disabled])")
    form.locator("#import-notice").get_by_text("It ends after this step").wait_for()
    gate.set()
    form.locator("#import-notice").get_by_text("No bank was written").wait_for()
    form.wait_for_selector("#import-start:not([disabled])")
    assert not (tiny_home / "banks" / "imported").exists()


def test_what_is_no_adapter_is_said_before_anything_is_sent(form, tmp_path):
    (tmp_path / "notes.json").write_text("{}")
    give(form, tmp_path / "notes.json")
    form.locator("#adapters").get_by_text("There is no adapter in that").wait_for()
    form.click("#import-start")
    form.locator("#import-notice").get_by_text("no adapter yet").wait_for()
    config = tmp_path / "data" / "loras" / "math" / "adapter_config.json"
    give(form, config)
    form.locator("#adapters").get_by_text(
        "adapter_model.safetensors is still to be given"
    ).wait_for()
    give(form, config.with_name("adapter_model.safetensors"))
    until(lambda: names(form) == ["adapter"])
    form.locator("#adapters").get_by_text(
        "adapter_config.json, adapter_model.safetensors"
    ).wait_for()
