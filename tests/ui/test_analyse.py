"""The Analyse tab: a corpus of someone's own, studied, shown, exported, stopped and refused."""

import gc
import json
from pathlib import Path
from threading import Event

import pandas as pd
import pytest
from page_server import source_of
from patience import PATIENCE
from playwright.sync_api import expect
from tiny_models import make_tiny_studio

from lmoe_studio.errors import DataError
from lmoe_studio.tracing.corpus_files import CorpusFile
from lmoe_studio.ui import studies
from lmoe_studio.ui.corpus_columns import chosen_corpus, columns_of, given_corpus, must_choose
from lmoe_studio.ui.studies import StudyStore, make_study, pandas_code

ROWS = [
    {"text": f"{label} text {n} <b>=1+1</b>", "skill": label}
    for label in ("sql", "prose") for n in range(5)
]  # fmt: skip
JSONL = "\n".join(map(json.dumps, ROWS))


@pytest.fixture(scope="module")
def tiny():
    return make_tiny_studio()


def study(tiny, folder, *, corpus=None, stop=None):
    path = corpus or given_corpus(JSONL, None, folder)
    assert path is not None
    return make_study(
        tiny, chosen_corpus(path, None, None), folder, max_tokens=64,
        stop=stop or Event(), on_progress=lambda _: None, on_step=lambda _: None,
    )  # fmt: skip


def test_what_is_pasted_is_read_as_what_it_looks_like(tmp_path):
    for pasted, suffix, columns in (
        ("one\ntwo, three", ".txt", ["text"]),
        (JSONL, ".jsonl", ["text", "skill"]),
        ("label,text\na,b\n", ".csv", ["label", "text"]),
    ):
        path = given_corpus(pasted, None, tmp_path)
        assert path is not None
        assert path.suffix == suffix
        assert list(columns_of(pasted, None)) == columns
    assert given_corpus("  \n", None, tmp_path) is None
    assert given_corpus("x", "/some/file.csv", tmp_path) == Path("/some/file.csv")
    with pytest.raises(DataError, match="no JSON"):
        columns_of("{broken", None)


def test_columns_are_known_by_their_names_chosen_or_asked_for(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("skill,text\nx,y\n")
    assert chosen_corpus(path, "(automatic)", "(automatic)") == CorpusFile(path, "text", "skill")
    assert chosen_corpus(path, "skill", "(none)") == CorpusFile(path, "skill", None)
    assert chosen_corpus(path, "skill", "text") == CorpusFile(path, "skill", "text")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "a,b\n1,2\n3,4\n"),
        ("a.csv", "a,b\n,\n1,2\n"),
        ("a.jsonl", '{"a": 1, "b": 2}\n'),
        ("a.parquet", [{"a": 1, "b": 2}]),
    ],
)
def test_without_a_text_column_the_others_are_listed_with_a_cell_each(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        pd.DataFrame(content).to_parquet(path)
    columns = columns_of("", str(path))
    assert columns == {"a": "1", "b": "2"}
    assert must_choose(columns)
    with pytest.raises(DataError, match=r"no column 'text'; choose .* a \(1\), b \(2\)"):
        chosen_corpus(path, None, None)
    assert chosen_corpus(path, "a", None).text_column == "a"


def test_a_cell_to_know_a_column_by_is_short(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"body": "a\n  b" + "c" * 999_000, "n": None}))
    assert columns_of("", str(path)) == {"body": "a b" + "c" * 36 + "…", "n": ""}


def test_a_study_that_is_stopped_or_too_large_gives_nothing(tiny, tmp_path, monkeypatch):
    stop = Event()
    stop.set()
    assert study(tiny, tmp_path, stop=stop) is None
    monkeypatch.setattr(studies, "MOST_CHARACTERS", 10)
    with pytest.raises(DataError, match="`lmoe trace --data` and `lmoe report` take any number"):
        study(tiny, tmp_path)


def test_a_store_gives_a_study_only_to_its_user_and_forgets_the_oldest(tiny):
    store = StudyStore()
    kept = [study(tiny, store.new_folder()) for _ in range(studies.MOST_KEPT + 1)]
    keys = [store.put("ann", each) for each in kept]
    assert store.get("bob", keys[-1]) is None
    assert store.get("ann", 7) is None
    assert store.get("ann", keys[-1]) is kept[-1]
    assert store.get("ann", keys[0]) is None
    assert not kept[0].folder.exists()
    place = kept[-1].folder.parent
    assert place.exists()
    del store
    gc.collect()
    assert not place.exists()


def test_a_store_that_nobody_studies_with_makes_no_folder(monkeypatch):
    monkeypatch.setattr(studies, "mkdtemp", None)
    StudyStore()


def test_the_code_to_copy_is_python(tmp_path):
    code = pandas_code(CorpusFile(tmp_path / "it's.csv", "te\nxt", "a'b"), 9, "demo")
    compile(code, "code", "exec")
    assert "label_owners" in code
    assert "label_owners(" not in pandas_code(CorpusFile(tmp_path / "a.csv"), 9, "demo")


@pytest.fixture
def tab(open_page, serving, tiny):
    page = open_page(serving(source_of(tiny)))
    page.get_by_role("tab", name="Analyse").click()
    page.wait_for_selector("#study:not([disabled])")
    return page


@pytest.mark.slow
def test_pasted_texts_are_studied_shown_and_exported(tab):
    tab.fill("#corpus-text textarea", JSONL)
    tab.click("#study")  # at once: the labels are found without waiting for the list of columns
    tab.wait_for_selector("#findings li")
    assert "has the largest share" in tab.inner_text("#findings")
    tab.wait_for_selector("#answer-labels .main-svg")
    expect(tab.locator(".answer:visible")).to_have_count(10)
    # Plotly's buttons are there under the pointer only, and cover no mark and no legend.
    plot = tab.locator("#answer-usage_by_layer .js-plotly-plot")
    tab.mouse.move(0, 0)
    tab.wait_for_function(
        "[...document.querySelectorAll('.modebar')].every(bar => getComputedStyle(bar).opacity === '0')"
    )
    plot.hover()
    tab.wait_for_function(
        "getComputedStyle(document.querySelector('#answer-usage_by_layer .modebar')).opacity === '1'"
    )
    bar, legend, marks = (
        plot.locator(each).first.bounding_box()
        for each in (".modebar-group", ".legend", ".barlayer")
    )
    assert bar["y"] + bar["height"] <= min(legend["y"], marks["y"]) + 1
    tab.locator("#answer-health").get_by_text("max_share").first.wait_for()
    with tab.expect_download() as download:
        tab.click("#study-exports [data-format='csv']:has-text('CSV · about')")
    table = pd.read_csv(download.value.path())
    assert set(table["label"]) == {"sql", "prose"}
    with tab.expect_download() as download:
        tab.click("#study-exports [data-format='csv.gz']:has-text('CSV, gzipped · about')")
    assert download.value.suggested_filename.endswith(".csv.gz")
    pd.testing.assert_frame_equal(pd.read_csv(download.value.path(), compression="gzip"), table)
    with tab.expect_download() as download:
        tab.click("#study-exports [data-format='html']")
    assert "has the largest share" in download.value.path().read_text()
    found = tab.inner_text("#findings")
    tab.reload()
    tab.wait_for_timeout(3500)
    tab.get_by_role("tab", name="Analyse").click()
    tab.wait_for_selector("#answer-labels .main-svg")
    assert tab.inner_text("#findings") == found
    expect(tab.locator(".answer:visible")).to_have_count(10)
    with tab.expect_download() as download:
        tab.click("#study-exports [data-format='csv']")
    assert pd.read_csv(download.value.path()).equals(table)


@pytest.mark.slow
def test_what_cannot_be_studied_says_why(tab):
    tab.click("#study")
    tab.wait_for_selector("#study-notice .problem")
    assert "Paste some texts" in tab.inner_text("#study-notice")
    tab.fill("#corpus-text textarea", '{"text": 7}')
    tab.click("#study:not([disabled])")
    tab.wait_for_selector("#study-notice:has-text('not text')")
    tab.fill("#corpus-text textarea", "one text only, no label")
    tab.click("#study:not([disabled])")
    tab.wait_for_selector("#findings:has-text('no labels')")
    tab.wait_for_selector("#answer-usage")
    assert tab.locator("#answer-labels:visible").count() == 0


@pytest.mark.slow
def test_a_file_without_a_text_column_is_asked_about_and_called_by_its_own_name(tab, tmp_path):
    rows = "".join(f"{n},SELECT {n} FROM a WHERE b,sql\n" for n in range(3))
    path = tmp_path / "my rows.csv"
    path.write_text("n,body,skill\n" + rows)
    tab.set_input_files("#corpus-file input", path)
    tab.wait_for_selector("#study-notice:has-text('Which column holds the texts?')")
    assert "body (SELECT 0 FROM a WHERE b)" in tab.inner_text("#study-notice")
    tab.click("#study")
    tab.wait_for_selector("#study-notice .problem:has-text('choose the one that holds the texts')")
    tab.click("#text-column input")
    tab.click("[role=option]:has-text('body: SELECT 0')")
    tab.click("#study:not([disabled])")
    tab.wait_for_selector("#findings li")
    assert "Texts\n3" in tab.inner_text("#findings")
    path.write_text("text\nx\ny,z\n")
    tab.click("#corpus-file [aria-label='Clear']")
    tab.set_input_files("#corpus-file input", path)
    tab.click("#study:not([disabled])")
    tab.wait_for_selector("#study-notice .problem:has-text('my rows.csv, line 3: more cells')")


@pytest.mark.slow
def test_a_study_can_be_stopped(tab, tiny, monkeypatch):
    going = Event()

    def wait(*_, should_stop, **__):
        going.set()
        while not should_stop():
            Event().wait(0.05)
        return type("Run", (), {"is_finished": False})()

    monkeypatch.setattr(tiny, "trace_corpus", wait)
    tab.fill("#corpus-text textarea", "a text")
    tab.click("#study")
    tab.wait_for_selector("#study-notice progress")
    assert going.wait(PATIENCE)
    tab.click("#study-stop:not([disabled])")
    tab.wait_for_selector("#study-notice:has-text('Stopped')")
    tab.wait_for_selector("#study:not([disabled])")
