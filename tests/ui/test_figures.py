"""Figures and the report: what they hold, and that no text in them can become anything else."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from fake_studio import make_trace

import analysis
from analysis import routing_frame
from lmoe_studio.errors import ConfigError, StorageError
from lmoe_studio.ui import figures
from lmoe_studio.ui.palette import expert_colour
from lmoe_studio.ui.report import report_html, report_pieces, table_html, write_report
from lmoe_studio.ui.study import study_of, study_of_run

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


@pytest.fixture(scope="module")
def frame():
    words = ["<|im_start|>", HOSTILE, " a", "\n", "b", " a"] * 6
    traces = [make_trace(words, layers=5, seed=seed) for seed in range(6)]
    frame = routing_frame(traces)
    names = np.array(["sql", HOSTILE, "c"])
    return frame.assign(label=names[frame["sequence"] % 3])


@pytest.fixture(scope="module")
def study(frame):
    return study_of(frame, facts={"Bank": HOSTILE, "Base": "b"})


def test_a_study_answers_who_owns_what_and_has_a_figure_for_every_question(study):
    assert sum("its mean" in answer for answer in study.answers) == 3
    assert any("says more about the label than shuffled" in answer for answer in study.answers)
    names = [section.name for section in study.sections]
    assert names == ["labels", "owners", "specialisation", "usage", "usage_by_layer", "entropy",
                     "health", "pairs", "paths", "tokens"]  # fmt: skip
    assert [s.name for s in study.sections if s.figure is None] == ["health"]
    assert all(len(section.table) for section in study.sections)


def test_how_many_experts_act_is_a_section_where_it_is_not_always_the_same(frame):
    silent = (frame["layer"] == 3) & (frame["position"] % 2 == 0)
    weights = frame["weight"].where(~silent & (frame["weight"] > 0.05), 0)
    study = study_of(frame.assign(weight=weights), facts={})
    (section,) = [section for section in study.sections if section.name == "active"]
    table, lines = section.table, {line.name: line for line in section.figure.data}
    assert table["silent"].tolist() == [0, 0, 0, pytest.approx(0.4), 0]  # the first is special
    for name, column in (("experts that act", "active"), ("sum of the weights", "mass"),
                         ("tokens without any", "silent")):  # fmt: skip
        assert list(lines[name].y) == table[column].tolist()
    (answer,) = [answer for answer in study.answers if "experts act on a token" in answer]
    assert "none does in 8.0 % of the cells, most often in layer 3 (40.0 % of the tokens)" in answer
    assert f"{table['active'].mean():.1f} experts act" in answer
    assert f"a weight of {table['mass'].mean():.2f} in all" in answer
    assert "How many experts act" in report_html(study)


def test_experts_keep_their_colours_and_every_colour_has_a_letter(frame):
    figure = figures.usage_figure(analysis.expert_usage(frame, by=("layer",)))
    assert [bar.marker.color for bar in figure.data] == [expert_colour(i) for i in range(8)]
    assert [bar.name.split()[0] for bar in figure.data] == list("ABCDEFGH")
    shapes = [bar.marker.pattern.shape for bar in figure.data]
    assert all(a != b for a, b in pairwise(shapes))


def test_heatmaps_show_the_numbers_of_their_tables(frame):
    shares = analysis.label_shares(frame)
    heat = figures.label_figure(shares).data[0]
    by_name = shares.set_index(["label", "expert"])["share"]
    shown = {text: z for row, line in zip(heat.text, heat.z, strict=True)
             for text, z in zip(row, line, strict=True)}  # fmt: skip
    assert shown["sql · A sql"] == pytest.approx(by_name["sql", "sql"])
    assert shown["c · H prose"] == pytest.approx(by_name["c", "prose"])


def test_labels_of_the_same_look_are_not_merged(frame):
    labels = frame["label"].replace({"sql": "x" * 60 + "1", "c": "x" * 60 + "2"})
    heat = figures.label_figure(analysis.label_shares(frame.assign(label=labels))).data[0]
    assert list(heat.y) == [0, 1, 2]


def test_comparison_and_geometry_figures(frame):
    other = frame.assign(weight=frame["weight"] ** 2, run="other")
    by_layer = analysis.compare_runs(frame, other)
    np.testing.assert_allclose(figures.comparison_figure(by_layer).data[0].y, by_layer["jsd"])
    both = analysis.compare_runs(frame, other, by=("label", "layer"))
    assert np.shape(figures.comparison_figure(both).data[0].z) == (3, 5)
    means = analysis.compare_runs(frame, other, by=("label",), aligned=False)
    assert len(figures.comparison_figure(means).data[0].y) == 3
    cosines = pd.DataFrame(np.eye(2), list("pq"), list("pq"))
    assert list(figures.geometry_figure(cosines).data[0].z[0]) == [1, 0]


def test_figures_stand_on_light_and_dark(study):
    for section in study.sections:
        if section.figure is not None:
            layout = section.figure.layout
            assert (layout.paper_bgcolor, layout.font.color) == ("rgba(0,0,0,0)", "#8a8f98")
            assert layout.modebar.bgcolor == "rgba(0,0,0,0)"  # by itself half black


def test_the_report_needs_nothing_else_and_escapes_every_text(study):
    page = report_html(study)
    assert len(report_pieces(study)) == len(study.sections) + 2  # a report can be stopped in each
    body = page[page.index("<body>") :]
    assert "<img" not in body
    assert "alert(2)</script>" not in body
    assert "default-src 'none'" in page
    assert "cdn" not in body.lower()
    assert "Plotly.newPlot" in body
    page.encode()


def test_texts_in_figures_are_shown_and_not_read_as_html(study):
    for section in study.sections:
        if section.figure is not None:
            plain = json.loads(section.figure.to_json())
            assert "<img" not in json.dumps(plain)


def test_a_figures_text_is_escaped_once_and_only_where_plotly_unescapes():
    shown = {
        '"""': '"""',
        "it's": "it's",
        "<b>": "&lt;b&gt;",
        "&quot;": "&amp;quot;",
        "\n": "⏎",
        "  ": "␣␣",
    }
    assert [figures._shown(text) for text in shown] == list(shown.values())


def test_long_tables_say_that_they_are_cut():
    html = table_html(pd.DataFrame({"a": range(10)}), most=3)
    assert html.count("<tr>") == 4
    assert "The first 3 of 10 rows" in html


def test_a_run_without_labels_says_so(frame):
    study = study_of(frame.drop(columns="label"), facts={})
    assert "no labels" in study.answers[0]
    one = study_of(frame.assign(label="only"), facts={})
    assert "owners need at least two labels" in one.answers[0]


def test_what_is_no_run_is_refused(tmp_path, study):
    with pytest.raises(StorageError, match="holds no run"):
        study_of_run(tmp_path, None)
    for name in ("a", "b"):
        (tmp_path / f"run={name}").mkdir()
        (tmp_path / f"run={name}" / "_manifest.json").write_text("{}")
        (tmp_path / f"run={name}" / "part-00000.parquet").write_text("")
    with pytest.raises(ConfigError, match=r"several runs \(a, b\)"):
        study_of_run(tmp_path, None)
    with pytest.raises(StorageError, match="no finished part"):
        study_of_run(tmp_path, "c")
    with pytest.raises(StorageError, match="cannot be read"):
        study_of_run(tmp_path, "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(study, tmp_path / "file" / "report.html")
