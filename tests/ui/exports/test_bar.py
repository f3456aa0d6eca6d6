"""The bar in every tab: what it offers, how far a file is, stopping, and after a reload."""

from threading import Event

import pandas as pd
from patience import PATIENCE
from waits import keeping, one_run

from lmoe_studio.tracing.files import load_trace
from lmoe_studio.ui.exports import files
from lmoe_studio.ui.runs import RunBook


def saved(page, bar, kind, name=None):
    """The file that a press gives."""
    offer = f"{bar} .offer" + (f":has(strong:text-is('Export the {name}'))" if name else "")
    with page.expect_download() as download:
        page.locator(f"{offer} [data-format='{kind}']").first.click()
    return download.value


def write_in_compose(page, text="one two"):
    page.get_by_role("tab", name="Compose").click()
    page.fill("#compose-prompt textarea", text)
    with one_run(page):
        page.click("#generate")
    page.wait_for_selector("#compose-exports [data-format='csv']")


def run_in_compare(page, text="one two"):
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector("#picker select")
    page.fill("#compare-prompt textarea", text)
    with keeping(page, "comparison"), one_run(page, "#compare"):
        page.click("#compare")
    page.wait_for_selector("#compare-exports [data-format='csv']")


def test_what_compose_wrote_can_be_saved_also_after_a_reload(page, tmp_path):
    write_in_compose(page)
    page.click("#composer [aria-label='Solo math']")
    with keeping(page, "written"), one_run(page):
        page.click("#generate")
    page.locator("#compose-exports [data-format='parquet']").get_by_text("about").wait_for()
    files = [saved(page, "#compose-exports", "parquet")]
    page.reload()
    page.wait_for_timeout(3500)  # elsewhere first
    page.get_by_role("tab", name="Compose").click()
    files.append(saved(page, "#compose-exports", "parquet"))
    for number, file in enumerate(files):
        file.save_as(tmp_path / f"{number}.parquet")
    before, after = (load_trace(tmp_path / f"{number}.parquet") for number in range(2))
    assert before == after
    assert before.plan is not None
    assert "math" in before.plan
    text = saved(page, "#compose-exports", "txt").path().read_text()
    assert text.startswith("one two word0 word1 word2 word3 word4 other5")


def test_every_column_of_a_comparison_can_be_saved_also_after_a_reload(page):
    run_in_compare(page)
    name = "routing of every run"
    frame = pd.read_parquet(saved(page, "#compare-exports", "parquet", name).path())
    assert list(frame["plan"].unique()) == ["base", "A", "B"]
    packed = saved(page, "#compare-exports", "csv.gz", name)
    assert packed.suggested_filename.startswith("comparison-demo-")
    read = pd.read_csv(packed.path(), compression="gzip")
    assert list(read["plan"]) == list(frame["plan"])
    page.reload()
    page.wait_for_timeout(3500)
    page.get_by_role("tab", name="Compare").click()
    table = pd.read_csv(saved(page, "#compare-exports", "csv", "texts").path())
    assert list(table["run"]) == ["base", "A", "B"]
    assert table["text"].iloc[2].strip().startswith("word0 word1 word2 other3")


def test_a_sweep_is_a_table(page):
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector("#picker select")
    page.fill("#compare-prompt textarea", "one two")
    page.get_by_role("button", name="Sweep one expert").click()
    page.click("#run-sweep")
    page.wait_for_selector("#sweep-exports [data-format='csv']")
    table = pd.read_csv(saved(page, "#sweep-exports", "csv", "sweep").path())
    assert list(table["run"])[:2] == ["base", "sql 0"]
    assert page.locator("#sweep-exports .offer").count() == 1
    assert page.locator("#compare-exports .offer").count() == 0


def test_a_file_says_how_far_it_is_and_can_be_stopped(page, monkeypatch):
    page.get_by_role("button", name="Mixed").click()
    page.wait_for_selector("#exports [data-format='csv']")
    monkeypatch.setattr(files, "_ROWS", 500)
    write, stop, stopped, written = files.WRITERS["csv"].write, RunBook.stop, Event(), []

    def waiting(self, table):
        """Only the first rows are written before it is stopped."""
        assert not written or stopped.wait(PATIENCE)
        written.append(len(table))
        write(self, table)

    def told(self, user, key):
        found = stop(self, user, key)
        stopped.set()
        return found

    monkeypatch.setattr(RunBook, "stop", told)
    monkeypatch.setattr(files.WRITERS["csv"], "write", waiting)
    page.click("#exports [data-format='csv']")
    page.wait_for_function("document.querySelector('#exports progress')?.value > 0")
    assert page.locator("#exports [data-format='parquet']").is_disabled()
    page.click("#exports .told button")
    page.get_by_text("Stopped: no file was written.").wait_for()
    assert len(written) <= 2
    monkeypatch.undo()
    assert len(pd.read_csv(saved(page, "#exports", "csv").path())) > 500
    page.locator("#exports .told").wait_for(state="hidden")


def test_what_the_server_let_go_of_is_said(page, studio, monkeypatch):
    page.get_by_role("button", name="Mixed").click()
    page.wait_for_selector("#exports [data-format='csv']")
    monkeypatch.setattr("lmoe_studio.ui.traces.TraceStore.get", lambda *_: None)
    page.click("#exports [data-format='csv']")
    page.locator("#exports .told.problem:has-text('let go of this')").wait_for()


def test_a_bar_fits_a_narrow_page(open_page, url):
    page = open_page(url, width=390)
    page.get_by_role("button", name="Mixed").click()
    page.wait_for_selector("#exports [data-format='csv']")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
