"""The report: whole and self-contained, hostile names escaped everywhere, n/a never a number, full precision kept."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from mmms_plugin.coco.objects import GroundTruth
from mmms_plugin.commands.size_ap import run_size_ap
from mmms_plugin.errors import UserError
from mmms_plugin.report.tables import (
    escape_latex,
    escape_markdown,
)
from mmms_plugin.size_ap.bins import Bin
from mmms_plugin.size_ap.object_sizes import describe_objects
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.report import figures
from mmms_plugin.size_ap.report.tables import probability
from mmms_plugin.size_ap.report.write import write_object_sizes, write_report
from mmms_plugin.size_ap.results import (
    METRICS,
    BinResult,
    ClassMatrix,
    Comparison,
    Difference,
    GroupRow,
    Inputs,
    Interval,
    RunResult,
    SizeAPResults,
    SizePoint,
)

HOSTILE = ("<script>alert(1)</script>", "a_b & c%", "\\input{x} $y$ #1 ~ ^ {z}", "|pipe| *star* [l](http://x.y)")
BINS = (
    Bin("all", 0.0, math.inf),
    Bin("small", 0.0, 1024.0),
    Bin("medium", 1024.0, 9216.0),
    Bin("large", 9216.0, math.inf),
)
AP = (1 / 3, 0.123456789012345, 0.5, None)  # nothing large


def make_run(name: str, shift: float = 0.0, classes: tuple[str, ...] = HOSTILE) -> RunResult:
    values = [None if ap is None else ap + shift for ap in AP]
    around = [Interval(None, None) if v is None else Interval(v - 0.05, v + 0.07) for v in values]
    bins = tuple(
        BinResult(one, v, v, v, v, 0 if v is None else 40, 50, dict.fromkeys(METRICS, i))
        for one, v, i in zip(BINS, values, around, strict=True)
    )
    rows = tuple(tuple(v if v is None else v * (k + 1) / len(classes) for v in values) for k in range(len(classes)))
    counts = tuple((30, 20, 10, 0) for _ in classes)
    ids = tuple(range(1, len(classes) + 1))
    intervals = tuple(tuple(around) for _ in classes)
    matrix = ClassMatrix(ids, classes, rows, rows, rows, rows, counts, counts, intervals)
    sweep = tuple(
        SizePoint(side, side / 2, side * 2, None if side > 200 else 0.4, 0.5, 9) for side in (16.0, 64.0, 256.0)
    )
    return RunResult(name, bins, matrix, {"AP": values[0], "APl": None}, sweep)


def make_results(runs: int = 2, classes: tuple[str, ...] = HOSTILE) -> SizeAPResults:
    done = (make_run("<b>base</b>", classes=classes), make_run("ps_conv & more", 0.1, classes))[:runs]
    comparison = None
    if runs == 2:
        per_bin = tuple(
            Difference(one.name, m, a, a and a + 0.1, a and 0.1, a and Interval(0.02, 0.15), a and 0.99)
            for one, a in zip(BINS, AP, strict=True)
            for m in METRICS
        )
        per_class = tuple(Difference(name, "ap", 0.2, 0.1, -0.1, Interval(-0.2, -0.02), 0.01) for name in classes)
        some, nothing = {"ap": 0.2, "f1_per_class": 0.3, "f1_overall": 0.4}, dict.fromkeys(("ap", "f1_overall"))
        groups = (GroupRow(("small",), 7, some, some, some), GroupRow(("large",), 0, nothing, nothing, nothing))
        comparison = Comparison(done[0].name, done[1].name, per_bin, per_class, groups, 0.5)
    return SizeAPResults(
        iou_type="segm",
        area="mask",
        area_rule="area 'mask': pixels of the mask",
        bins=BINS,
        bins_source="coco",
        bins_reference="Lin et al. 2014",
        edge_rule="bins are half-open",
        images=10,
        annotations=44,
        crowds=4,
        max_dets=77,
        iou_thresholds=(0.5, 0.55, 0.6),
        replicates=1234,
        confidence=0.9,
        seed=5,
        runs=done,
        comparison=comparison,
        notes=("look <i>here</i>",),
    )


def make_truth(objects: int = 60) -> GroundTruth:
    rng = np.random.default_rng(1)
    sides = 2 ** rng.uniform(2, 8, (objects, 2))
    boxes = np.c_[np.zeros((objects, 2)), sides]
    ids = np.arange(objects)
    return GroundTruth(
        np.arange(5), np.full((5, 2), 300), np.arange(4), HOSTILE, ids, ids % 4, ids % 3, boxes, sides.prod(1), ids == 0
    )


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    inputs = Inputs(make_truth(), (), Options(errors=False))
    files = write_report(
        dataclasses.replace(make_results(), inputs=inputs), folder / "new" / "deeper", figures=("png", "pdf")
    )
    return {file.name: file for file in files}


@pytest.mark.slow
def test_the_page_stands_alone_and_hostile_names_are_only_text(report):
    text = report["report.html"].read_text(encoding="utf-8")
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "i", "b"}
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert all(link.startswith(("data:image/svg+xml;base64,", "#s")) for link in links)
    assert "url(" not in text
    assert "@import" not in text
    for name in (*HOSTILE, "<b>base</b>", "look <i>here</i>"):
        assert " ".join(name.split()) in page.text


def test_the_page_says_how_everything_was_measured(report):
    text = Page(report["report.html"].read_text(encoding="utf-8")).text
    for part in ("1,234", "90%", "at most 77 per image", "0.50 to 0.60", "area 'mask'", "bins are half-open", "seed 5",
                 "32–96 px", "≥ 96 px", "Lin et al. 2014", "44, including 4 crowd regions", "n/a"):  # fmt: skip
        assert part in text


def test_undefined_figures_are_n_a_in_tables_and_empty_or_null_in_data(report):
    page = Page(report["report.html"].read_text(encoding="utf-8")).text
    for text in (
        page,
        report["tables.md"].read_text(encoding="utf-8"),
        report["tables.tex"].read_text(encoding="utf-8"),
    ):
        assert "n/a" in text
        assert not re.search(r"[-−]1\.0\b|[-−]100\.0|nan|None", text)
    rows = list(csv.DictReader(report["bins.csv"].open(encoding="utf-8")))
    assert [row["ap"] for row in rows[:4]] == ["0.3333333333333333", "0.123456789012345", "0.5", ""]
    assert rows[3]["area_high_px2"] == "inf"
    data = json.loads(report["results.json"].read_text(encoding="utf-8"))
    assert [found["ap"] for found in data["runs"][0]["bins"]] == list(AP)
    assert len(list(csv.DictReader(report["classes.csv"].open(encoding="utf-8")))) == 2 * 4 * 4
    assert {row["kind"] for row in csv.DictReader(report["differences.csv"].open(encoding="utf-8"))} == {"bin", "class"}


def test_every_figure_is_written_in_three_formats_and_shows_something(report):
    names = {"ap_per_bin", "ar_per_bin", "ap_difference", "image_groups", "ap_against_size", "object_sizes"}
    for name in (*names, "class_by_size-1", "class_by_size-2"):
        assert report[f"{name}.pdf"].read_bytes().startswith(b"%PDF")
        assert "<svg" in report[f"{name}.svg"].read_text(encoding="utf-8")[:1000]
        picture = np.asarray(Image.open(report[f"{name}.png"]).convert("L"))
        assert picture.shape[1] > 600
        assert 0.02 < (picture < 250).mean() < 0.9
    folder = report["report.html"].parent
    assert {file.name for file in folder.iterdir()} == set(report)  # and no temporary file is left


@pytest.mark.slow
def test_one_run_without_bootstrap_over_an_old_report(tmp_path):
    results = make_results(runs=1, classes=("one",))
    bare = [dataclasses.replace(found, intervals={}) for found in results.runs[0].bins]
    run = dataclasses.replace(results.runs[0], bins=tuple(bare), sweep=())
    (tmp_path / "report.html").write_text("old", encoding="utf-8")
    files = write_report(dataclasses.replace(results, runs=(run,), replicates=0, notes=()), tmp_path)
    text = Page(files[0].read_text(encoding="utf-8")).text
    assert "no bootstrap" in text
    assert "Difference" not in text
    assert "old" not in text.split()


def test_latex_is_escaped_and_balanced(report):
    text = report["tables.tex"].read_text(encoding="utf-8")
    assert r"a\_b \& c\%" in text
    assert r"\textbackslash{}input\{x\} \$y\$ \#1 \textasciitilde{} \textasciicircum{} \{z\}" in text
    assert r"\textless{}script\textgreater{}" in text
    bare = re.sub(r"\\[\\{}&%$#_]", "", text)  # without escaped signs
    assert bare.count("{") == bare.count("}")
    assert bare.count(r"\begin{tabular}") == bare.count(r"\end{tabular}") == bare.count(r"\toprule")
    assert not re.search(r"[_#^~]", bare)
    assert all(line.startswith("%") for line in bare.splitlines() if "%" in line)
    for table in re.findall(r"\\begin\{tabular\}\{(l r*|lr*)\}(.*?)\\end\{tabular\}", bare, re.S):
        rows = [row for row in table[1].splitlines() if "&" in row]
        assert {row.count("&") for row in rows} == {len(table[0]) - 1}


def test_markdown_keeps_hostile_names_in_their_cells(report):
    lines = [line for line in report["tables.md"].read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert any(r"\|pipe\| \*star\* \[l\](http://x.y)" in line for line in lines)
    assert not any("<" in line for line in lines)


def test_object_sizes_count_as_numpy_does_and_suggest_bins_of_equal_count(tmp_path):
    truth = make_truth(400)
    sizes = describe_objects(truth, BINS)
    sides = np.sqrt(truth.annotated_area[1:])  # the first is a crowd
    assert sizes.counts == (399, (sides < 32).sum(), ((sides >= 32) & (sides < 96)).sum(), (sides >= 96).sum())
    assert sum(sizes.histogram) == sum(one.objects for one in sizes.classes) == sizes.objects == 399
    assert sizes.images_without == 1
    assert dict(sizes.quantiles)[0.5] == pytest.approx(np.median(sides))
    assert sizes.classes[-1].objects == 0
    for count, edges in sizes.equal_bins.items():
        shares = np.histogram(sides, [0, *edges, np.inf])[0] / len(sides)
        assert shares == pytest.approx(np.full(count, 1 / count), abs=0.02)
    anchors = sizes.anchors
    assert anchors is not None
    rng, boxes = np.random.default_rng(0), truth.boxes[1:, 2:]
    covered = []
    for box in boxes:  # each object at 20 places on the grids of all anchors
        middles = rng.uniform(0, 64, (20, 2))
        best = np.zeros(20)
        for side, stride in zip(anchors.sides, anchors.strides, strict=True):
            away = np.abs((middles + stride / 2) % stride - stride / 2)
            for ratio in anchors.ratios:
                size = side / ratio**0.5, side * ratio**0.5
                low = np.maximum(-np.array(size) / 2, away - box / 2)
                high = np.minimum(np.array(size) / 2, away + box / 2)
                both = np.clip(high - low, 0, None).prod(1)
                best = np.maximum(best, both / (box.prod() + size[0] * size[1] - both))
        covered.append((best >= 0.5).mean())
    assert anchors.covered == pytest.approx(np.mean(covered), abs=0.02)
    files = {file.name for file in write_object_sizes(sizes, tmp_path)}
    assert {"object_sizes.html", "object_sizes.json", "object_size_tables.tex", "object_sizes.svg"} <= files
    with pytest.raises(UserError, match=r"^figures=tiff: allowed are svg, png, pdf$"):
        write_object_sizes(sizes, tmp_path / "other", ("pdf", "tiff"))
    assert not (tmp_path / "other").exists()
    assert (
        json.loads((tmp_path / "object_sizes.json").read_text(encoding="utf-8"))["classes"][-1]["median_side"] is None
    )
    assert '--bins "q1=0:' in Page((tmp_path / "object_sizes.html").read_text(encoding="utf-8")).text


def test_a_data_set_without_objects_has_a_page_too(tmp_path):
    sizes = describe_objects(make_truth(0), BINS)
    assert (sizes.objects, sizes.counts, sizes.anchors, sizes.equal_bins) == (0, (0, 0, 0, 0), None, {})
    assert write_object_sizes(sizes, tmp_path)[0].exists()


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 80, 300])
def test_the_heat_map_stays_legible_with_many_classes(classes):
    names = [f"class number {i}" for i in range(classes)]
    values = np.linspace(1, 0, classes)[:, None] * np.ones(4)
    figure = figures.draw_class_map(names, ["all", "small", "medium", "large"], values, "AP")
    figure.draw_without_rendering()
    for axis in figure.axes[:-1]:
        boxes = [label.get_window_extent() for label in axis.get_yticklabels()]
        assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(boxes))
        assert all(label.get_fontsize() >= 7 for label in axis.get_yticklabels())
    shown = [label.get_text() for axis in figure.axes[:-1] for label in axis.get_yticklabels()]
    assert len(shown) == min(classes, 120)
    assert (shown[0], shown[-1]) == (names[0], names[-1])


@pytest.mark.parametrize("runs", [1, 2])
def test_bars_of_many_bins_with_long_names_stay_legible_on_a_page(runs):
    labels = [f"microscopically_tiny_{i}\n{i}–{i + 1}000 px²\nn = 1,234" for i in range(10)]
    full = np.ones(10)
    series = [figures.Series("mask_rcnn_elastic_resnext50_fpn_1x_coco", full, 0.9 * full, full)] * runs
    drawn = figures.draw_bars(labels, series, "AP (× 100)", "object size")
    drawn.draw_without_rendering()
    width, height = drawn.bbox.size
    assert drawn.get_size_inches()[0] <= 7.0
    axis = drawn.axes[0]
    shown = [*axis.get_xticklabels(), *axis.texts, *(axis.get_legend().get_texts() if runs > 1 else ())]
    assert min(text.get_fontsize() for text in shown) >= 7
    boxes = [text.get_window_extent() for text in shown]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"--out .*file/out: this folder cannot be made"):
        write_report(make_results(1), tmp_path / "file" / "out")


def test_a_wrong_folder_is_reported_before_the_files_are_read(tmp_path, monkeypatch):
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mmms_plugin.files.NamedTemporaryFile", refuse)
    with pytest.raises(UserError, match=r"--out .*: nothing can be written there \(Permission denied\)"):
        run_size_ap("absent.json", ["absent.json"], str(tmp_path), Options())


@pytest.mark.slow
def test_every_output_says_what_sizes_an_object(report):
    rule = make_results(2).area_rule
    data = json.loads(report["results.json"].read_text(encoding="utf-8"))
    assert data["area_rule"] == rule
    for name in ("bins.csv", "classes.csv", "differences.csv"):
        assert {row["area"] for row in csv.DictReader(report[name].open(encoding="utf-8"))} == {rule}
    text = report["tables.md"].read_text(encoding="utf-8")
    assert text.count(f"**\n\n{escape_markdown(rule)}\n") == len(re.findall(r"^\*\*", text, re.M)) > 5
    text = report["tables.tex"].read_text(encoding="utf-8")
    assert text.count(f"; {escape_latex(rule)}}}") == text.count(r"\caption{") > 5


def test_no_number_of_replicates_tells_a_probability_of_0_or_1():
    assert [probability(p) for p in (0.0, 0.0421, 1.0, None)] == ["< 0.001", "0.042", "> 0.999", "n/a"]
