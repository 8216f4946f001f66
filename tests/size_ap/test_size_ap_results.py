"""Results in Python: tables in a notebook, figures, data frames, the report, and an example that runs."""

from __future__ import annotations

import csv
import doctest
import importlib
import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

import mmms_plugin.size_ap
from mmms_plugin.errors import UserError
from mmms_plugin.report.tables import to_csv
from mmms_plugin.size_ap import size_ap
from mmms_plugin.size_ap.report.size_iou import write_region_report
from mmms_plugin.size_ap.report.tables import data_tables
from mmms_plugin.size_ap.size_iou import RegionOptions, evaluate_regions, image_regions, join_images
from tests.fuzz.size_ap import quick_figures
from tests.size_ap.test_size_ap_report import HOSTILE, Page, make_results

CLASSES = ("car", "tree")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Sixty objects of 16 or 64 px; ``plain`` misses one in three, ``ps`` one in seven; both are up to 5 px off."""
    folder = tmp_path_factory.mktemp("files")
    images = [{"id": i, "file_name": f"{i}.png", "width": 200, "height": 200} for i in range(1, 61)]
    sides = {i["id"]: 16 if i["id"] % 2 else 64 for i in images}
    annotations = [
        {"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [9, 9, side, side], "area": side**2, "iscrowd": 0}
        for i, side in sides.items()
    ]
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES, 1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / "val.json").write_text(json.dumps(content), encoding="utf-8")
    for name, third, shift in (("plain", 3, 1), ("ps", 7, 0.6)):
        predictions = [
            {"image_id": i, "category_id": 1 + i % 2, "score": 0.5 + i / 200,
             "bbox": [9 + shift * i % 5, 9, side, side]}
            for i, side in sides.items()
            if i % third
        ]  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(predictions), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def results(files):
    return size_ap(files / "val.json", {name: files / f"{name}.json" for name in ("plain", "ps")}, bootstrap=20)


def test_a_notebook_shows_the_tables_in_its_own_colours():
    results = make_results()
    html = results._repr_html_()
    page = Page(html)
    assert "<script" not in html
    assert "#" not in html.replace(HOSTILE[2], "")  # no colour of its own, which could be dark on dark
    assert [attributes["data-name"] for tag, attributes in page.tags if tag == "table"] == [
        "bins-1", "bins-2", "differences",
    ]  # fmt: skip
    assert "look &lt;i&gt;here" in html
    assert "33.3" in page.text


def test_errors_are_folded_and_what_is_unsettled_is_told(results):
    page = Page(results._repr_html_())
    assert [tag for tag, _ in page.tags].count("details") == 2
    assert all(line in page.text for line in results.notes)
    assert "would settle it" in page.text or "not settled" not in str(results)


def test_print_is_what_the_command_prints(results):
    text = str(results)
    assert text.count("by object size (× 100)") == 2
    assert "ps (second) minus plain (first)" in text
    assert text.endswith(results.edge_rule)
    assert "\x1b" not in text
    assert len(repr(results)) < 100


@pytest.mark.parametrize(
    ("kind", "run", "series"),
    [("ap", None, ["plain", "ps"]), ("ar", None, ["plain", "ps"]), ("sweep", None, ["plain", "ps"]),
     ("errors", "ps", 6), ("classes", None, 0), ("difference", "ps", 0), ("groups", None, 3)],
)  # fmt: skip
def test_every_figure_of_the_report_can_be_drawn(results, kind, run, series):
    figure = results.plot(kind, run)
    assert isinstance(figure, Figure)
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    names = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert names == series if isinstance(series, list) else len(names) == series


def test_a_notebook_shows_a_figure_in_the_readers_scheme_and_it_can_still_be_changed(results):
    figure = results.plot()
    svg = figure._repr_svg_()
    assert svg.count("prefers-color-scheme: dark") == 1
    assert svg.rstrip().endswith("</svg>")
    assert isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine)
    assert svg == figure._repr_svg_()


def test_figures_leave_the_users_pyplot_alone():
    code = "import sys; import mmms_plugin.size_ap.report.write; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [(("pie",), "plot 'pie': must be one of ap, ar, sweep, errors, classes, confusion, precision-recall, "),
     (("errors", "x"), "run='x': must be one of plain, ps"),
     (("difference", "plain"), "run='plain': must be one of ps")],
)  # fmt: skip
def test_an_unknown_figure_or_run_is_one_line(results, arguments, line):
    with pytest.raises(ValueError, match=line.replace("'", ".")):
        results.plot(*arguments)


def test_what_was_not_evaluated_cannot_be_drawn(files):
    results = size_ap(files / "val.json", files / "ps.json", errors=False, sweep=False)
    for kind, line in (("errors", "errors=True"), ("sweep", "sweep=True"), ("difference", "at least two runs")):
        with pytest.raises(UserError, match=line):
            results.plot(kind)
    for name, line in (
        ("errors", "errors=True"),
        ("ap_against_size", "sweep=True"),
        ("differences", "at least two runs"),
    ):
        with pytest.raises(UserError, match=f"table '{name}': not evaluated; evaluate with {line}"):
            results.to_pandas(name)
    with pytest.raises(UserError, match=r"table='nothing': must be one of bins, classes$"):
        results.to_pandas("nothing")


@pytest.mark.parametrize("name", ["bins", "classes", "errors", "ap_against_size", "differences", "settling"])
def test_data_frames_are_the_reports_csv_files(results, name):
    frame = results.to_pandas(name)
    header, rows = data_tables(results)[name]
    assert list(frame.columns) == header
    read = list(csv.reader(to_csv(header, rows).splitlines()))[1:]
    for row, values in zip(frame.astype(object).where(frame.notna(), None).to_numpy().tolist(), read, strict=True):
        assert [None if value == "" else type(cell)(value) if isinstance(cell, float) else value
                for cell, value in zip(row, values, strict=True)] \
            == [cell if cell is None or isinstance(cell, float) else str(cell) for cell in row]  # fmt: skip


def test_without_pandas_a_line_says_what_to_install(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pandas is not installed; install it with: pip install pandas"):
        results.to_pandas()


def test_what_was_evaluated_is_in_no_file_and_decides_no_comparison(results):
    assert "inputs" not in results.to_json()
    assert results == replace(results, inputs=None) == pickle.loads(pickle.dumps(results))


@pytest.mark.parametrize(
    ("options", "line"),
    [({"bootstrap": "9"}, "--bootstrap 9: must be an integer from 0 to 100,000"),
     ({"bootstrap": 2.5}, "--bootstrap 2.5: must be an integer from 0 to 100,000"),
     ({"bins": "nonsense"}, "--bins 'nonsense': allowed are coco, "),
     ({"bins": [32, 0]}, "--bins '32,0': allowed are coco, "),
     ({"bins": 32}, "--bins 32: must be a text"),
     ({"bin_unit": None}, "--bin-unit None: must be a text"),
     ({"tiles": 64.5}, "--tiles 64.5: must be a side in px"),
     ({"iou_type": ["bbox"]}, "--iou-type ['bbox']: allowed are bbox, segm"),
     ({"confidence": 2}, "--confidence 2: must be a number above 0"),
     ({"format": "png"}, "--format png: allowed are auto, coco, ")],
)  # fmt: skip
def test_a_wrong_option_is_the_commands_line(files, options, line):
    with pytest.raises(ValueError, match=f"^{re.escape(line)}") as caught:
        size_ap(files / "val.json", files / "ps.json", **options)
    assert "\n" not in str(caught.value)


def test_regions_are_shown_drawn_and_saved_too(tmp_path):
    truth = np.kron(np.eye(4, dtype=np.int64), np.ones((30, 30), np.int64))
    regions = join_images([image_regions(truth, np.roll(truth, 3, 1), 2)])
    results = evaluate_regions(regions, HOSTILE[:2], RegionOptions())
    assert "<script" not in results._repr_html_()
    assert list(results.to_pandas("classes").columns[:3]) == ["class", "bin", "regions"]
    assert [len(results.plot(kind).axes) for kind in ("bins", "classes")] == [1, 2]
    with pytest.raises(UserError, match="must be one of bins, classes"):
        results.plot("ap")
    with quick_figures(True):
        saved, written = results.save(tmp_path / "a"), write_region_report(results, tmp_path / "b")
    assert [file.name for file in saved] == [file.name for file in written]
    nothing = evaluate_regions(join_images([image_regions(truth + 9, truth, 2)]), CLASSES, RegionOptions())
    with pytest.raises(UserError, match="no class has regions"):
        nothing.plot("classes")


def test_the_example_runs(files, tmp_path, monkeypatch):
    for name in ("val", "plain", "ps"):
        (tmp_path / f"{name}.json").write_bytes((files / f"{name}.json").read_bytes())
    monkeypatch.chdir(tmp_path)
    with quick_figures(True):
        outcome = doctest.testmod(importlib.import_module(mmms_plugin.size_ap.__name__), raise_on_error=False)
    assert outcome.attempted > 5
    assert outcome.failed == 0
    assert (tmp_path / "difference.png").is_file()
