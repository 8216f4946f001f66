"""The written report and what the command prints: the facts, sections and figures of the results, and no others."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from mmms_plugin.commands.size_ap import run_size_ap
from mmms_plugin.report.tables import bracket, percent
from mmms_plugin.size_ap.bins import resolve_bins
from mmms_plugin.size_ap.gate import parse_conditions
from mmms_plugin.size_ap.methods import Seeds
from mmms_plugin.size_ap.object_sizes import describe_objects
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.report.gallery import make_gallery, window
from mmms_plugin.size_ap.report.size_iou import write_region_report
from mmms_plugin.size_ap.report.write import write_object_sizes, write_report
from mmms_plugin.size_ap.results import ERROR_TYPES, METRICS, Failures, SizeAPResults
from mmms_plugin.size_ap.size_iou import RegionOptions, evaluate_regions, image_regions, join_images
from tests.size_ap.size_ap_data import random_coco
from tests.size_ap.test_size_ap_objects import data
from tests.size_ap.test_size_ap_tables import BINS, results  # noqa: F401


@pytest.fixture
def drawn(monkeypatch) -> dict[str, Figure]:
    """Figures by the name of their file, not rendered, which takes nine tenths of the time."""
    figures: dict[str, Figure] = {}

    def savefig(figure: Figure, file: Path, **_: object) -> None:
        figures[Path(file).stem] = figure
        Path(file).write_text("<svg/>", encoding="utf-8")

    monkeypatch.setattr(Figure, "savefig", savefig)
    monkeypatch.setattr(Figure, "draw_without_rendering", lambda _: None)
    return figures


def heights(figure: Figure) -> list[list[float]]:
    return [[round(bar.get_height(), 9) for bar in bars] for bars in figure.axes[0].containers]


def text_of(page: Path) -> str:
    body = page.read_text(encoding="utf-8").partition("<body")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_the_report_holds_what_the_results_hold(results, drawn, tmp_path):  # noqa: F811
    files = write_report(results, tmp_path)
    assert files[0] == tmp_path / "report.html"
    assert {file.name for file in files} == {file.name for file in tmp_path.iterdir()}
    figures = {"ap_per_bin", "ar_per_bin", "ap_difference", "ap_difference-2", "image_groups", "image_groups-2",
               "ap_against_size", *(f"{n}-{i}" for n in ("errors", "class_by_size") for i in (1, 2, 3))}  # fmt: skip
    assert set(drawn) == figures
    texts = {"report.html", "results.json", "bins.csv", "classes.csv", "errors.csv", "ap_against_size.csv",
             "differences.csv", "settling.csv", "tables.md", "tables.tex"}  # fmt: skip
    assert {file.name for file in files} == texts | {f"{name}.svg" for name in figures}
    text = text_of(files[0])
    for fact in (
        "How well base and better and third detect objects of different sizes.",
        "runs base, better (2 seeds), third (2 seeds) ",
        "overlap of boxes (bbox), IoU 0.50 to 0.75 (2 steps) ",
        "object size the rule ",
        "bins small < 32 px, large ≥ 32 px (side = √area) ",
        "bins from coco (the reference) ",
        "on a limit the edges ",
        "images 4,321 ",
        "objects 5,678, including 91 crowd regions ",
        "detections at most 100 per image and class count ",
        "uncertainty 1,000 replicates of the bootstrap over images and seeds, 95% bias-corrected percentile intervals, "
        "seed 3 ",
        "box AP by object size; n: objects. Lines: 95% intervals of the bootstrap over images and seeds "
        "(1,000 replicates).",
        "better minus base. Lines: 95% intervals of the paired bootstrap over images and seeds (1,000 replicates)",
        "slides over size from side / 2 to side × 2; above: objects in the window. Bands: 95% intervals of the "
        "bootstrap over images and seeds (200 replicates).",
        "if a detection of it scores at least 0.3.",
        "Difference: better", "Difference: third", "By the object sizes in an image: third", "Figures of pycocotools",
        "better: AP of each seed", "What would settle the difference: third minus base",
    ):  # fmt: skip
        assert fact in text
    assert "base: AP of each seed" not in text
    assert "LVIS" not in text
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", files[0].read_text(encoding="utf-8"))
    assert headings == [
        "AP per size", "Why AP is lost", "Difference: better", "By the object sizes in an image: better",
        "Difference: third", "By the object sizes in an image: third", "AP against object size", "Class by size",
        "Figures of pycocotools",
    ]  # fmt: skip
    tables = re.findall(r'data-name="([^"]+)"', files[0].read_text(encoding="utf-8"))
    assert tables == [
        "bins-1", "bins-2", "bins-3", "seeds-2", "seeds-3", "errors-1", "errors-2", "errors-3", "error-differences",
        "error-differences-2", "differences", "class-differences", "settling", "image-groups", "differences-2",
        "class-differences-2", "settling-2", "image-groups-2", "classes-1", "classes-2", "classes-3", "coco-figures",
    ]  # fmt: skip
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == results.to_json()
    assert (tmp_path / "tables.md").read_text(encoding="utf-8").count("the rule") == len(tables)


def test_figures_show_the_runs_numbers(results, drawn, tmp_path):  # noqa: F811
    write_report(results, tmp_path)
    assert heights(drawn["ap_per_bin"]) == [[0.5, 0.25, 0], [0.75, 0.25, 0], [0.625, 0.25, 0]]
    assert heights(drawn["ar_per_bin"]) == [[0.6, 0.35, 0]] * 3
    for name in ("ap_per_bin", "ar_per_bin"):
        (axis,) = drawn[name].axes
        assert [label.get_text() for label in axis.get_xticklabels()] == [
            "all\nall sizes\nn = 1,234", "small\n< 32 px\nn = 1,000", "large\n≥ 32 px\nn = 0",
        ]  # fmt: skip
        assert axis.get_ylabel() == f"box {name[:2].upper()} (× 100)"
        assert axis.get_xlabel() == "object size by annotated area"
    ends = [[end[1] for end in part] for part in drawn["ap_per_bin"].axes[0].collections[1].get_segments() if len(part)]
    assert np.array(ends) == pytest.approx(np.array([[0.74, 0.77], [0.24, 0.27]]))
    for i in (1, 2, 3):
        assert heights(drawn[f"errors-{i}"]) == [[k / 100, k / 100, 0] for k in range(6)]
        ends = [part[:, 1].tolist() for part in drawn[f"errors-{i}"].axes[0].collections[5].get_segments() if len(part)]
        assert ends == [[0, 0.1], [0, 0.1]]
        shown = drawn[f"class_by_size-{i}"].axes[0]
        assert [label.get_text() for label in shown.get_yticklabels()] == ["dog", "cat"]
        assert shown.images[0].get_array().filled(-1).tolist() == [[0.3, 0.4, -1], [0.1, -1, 0.2]]
    for name, gain in (("ap_difference", 0.25), ("ap_difference-2", 0.125)):
        (axis,) = drawn[name].axes
        assert [line.get_ydata()[0] for line in axis.lines[2::2]] == [gain, gain]
        assert list(axis.lines[1].get_ydata()) == [-0.1, 0.2]
        labels = [label.get_text() for label in axis.get_xticklabels()]
        assert labels == ["all\nall sizes\nP = 0.750", "small\n< 32 px\nP < 0.001", "large\n≥ 32 px"]
        (axis,) = drawn[name.replace("ap_difference", "image_groups")].axes
        assert [[bar.get_width() for bar in bars] for bars in axis.containers] == [[0.25, 0], [0.3, 0], [0, 0]]
        assert [label.get_text() for label in axis.get_yticklabels()] == ["small + large  (1,700)", "all images  (0)"]
    (axis,) = drawn["ap_against_size"].axes
    assert [line.get_ydata()[0] for line in axis.lines] == [0.4] * 3
    assert axis.lines[0].get_xdata().tolist() == [16, 64]
    assert axis.get_xlabel() == "object side = √(annotated area), px (log scale)"
    assert axis.child_axes[0].get_ylim()[1] == pytest.approx(9.45)
    assert len(axis.collections) == 3


def bare(results: SizeAPResults) -> SizeAPResults:  # noqa: F811
    """One run of one class without bootstrap, errors, curve and other evaluators' figures."""
    first = results.runs[0]
    bins = tuple(replace(found, intervals={}, errors={}) for found in first.bins)
    m = first.classes
    matrix = replace(m, category_ids=(5,), category_names=("cat",), ap=m.ap[:1], ap_intervals=None)
    only = replace(first, bins=bins, sweep=(), classes=matrix, stats={})
    return replace(results, runs=(only,), comparison=None, more_comparisons=(), replicates=0, iou_type="segm",
                   iou_thresholds=(0.5,), bins=tuple(replace(b, unit="area") for b in BINS))  # fmt: skip


def test_what_was_not_evaluated_is_not_in_the_report(results, drawn, tmp_path):  # noqa: F811
    write_report(bare(results), tmp_path)
    assert set(drawn) == {"ap_per_bin", "ar_per_bin"}
    assert {p.name for p in tmp_path.iterdir() if p.suffix in (".csv", ".json", ".md", ".tex")} == {
        "bins.csv", "classes.csv", "results.json", "tables.md", "tables.tex"}  # fmt: skip
    text = text_of(tmp_path / "report.html")
    assert "masks (segm), IoU 0.50 object size" in text
    assert "uncertainty no bootstrap (--bootstrap N adds it)" in text
    assert "large ≥ 1024 px² (area)" in text
    assert "Lines:" not in text
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", (tmp_path / "report.html").read_text(encoding="utf-8")) == ["AP per size"]
    assert drawn["ap_per_bin"].axes[0].get_ylabel() == "mask AP (× 100)"


def test_two_runs_of_single_seeds(results, drawn, tmp_path):  # noqa: F811
    runs = tuple(replace(one, seeds=(), stats={**one.stats, "APr": 0.5}) for one in results.runs[:2])
    first = results.comparison
    without = replace(first, settling=(), groups=(), per_class=first.per_class[:1])
    m = runs[0].classes
    cat = replace(m, category_ids=(5,), category_names=("cat",), ground_truths=m.ground_truths[:1], ap=m.ap[:1])
    one_class = tuple(replace(one, classes=replace(cat, ap_intervals=None)) for one in runs)
    pair = replace(results, runs=one_class, comparison=without, more_comparisons=())
    write_report(pair, tmp_path)
    text = text_of(tmp_path / "report.html")
    for part in (
        "Difference of the two runs", "replicates of the image bootstrap", "paired image bootstrap", "lvis-api",
        "LVIS: the best 300",
    ):  # fmt: skip
        assert part in text
    assert "By the object sizes in an image" not in text
    tables = re.findall(r'data-name="([^"]+)"', (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert tables == ["bins-1", "bins-2", "errors-1", "errors-2", "error-differences", "differences", "coco-figures"]
    assert not (tmp_path / "settling.csv").exists()
    assert (tmp_path / "differences.csv").exists()


def test_object_sizes_on_a_page(drawn, tmp_path):
    sizes = describe_objects(data([(4, 4), (4, 4), (20, 20), (9, 9)], crowd=(3,)), BINS, notes=("a note",))
    files = write_object_sizes(sizes, tmp_path)
    texts = {"object_sizes.html", "object_sizes.json", "object_size_tables.md", "object_size_tables.tex"}
    assert {file.name for file in files} == texts | {"object_sizes.svg"}
    text = text_of(tmp_path / "object_sizes.html")
    for part in ("images 3 (1 without objects)", "objects 3, not counting 1 crowd regions", "classes 3 ",
                 f"object size {sizes.area_rule}", "a note"):  # fmt: skip
        assert part in text
    (axis,) = drawn["object_sizes"].axes
    assert axis.patches[0].get_data().values.sum() == 3
    assert [text.get_text() for text in axis.texts] == ["small"]
    assert not axis.lines  # 32 px is beyond the histogram
    cut = describe_objects(data([(4, 4), (200, 200)]), BINS)
    write_object_sizes(cut, tmp_path / "more")
    assert [line.get_xdata()[0] for line in drawn["object_sizes"].axes[0].lines] == [32]
    assert [text.get_text() for text in drawn["object_sizes"].axes[0].texts] == ["small", "large"]


@pytest.fixture
def files(tmp_path) -> tuple[str, str, str]:
    coco, found = random_coco(41, images=6, classes=2, detections=20)
    paths = []
    for name, content in (("ann", coco), ("one", found), ("two", found[::2])):
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        paths.append(str(tmp_path / f"{name}.json"))
    return tuple(paths)


def printed(*args, width: int = 200, **more) -> tuple[str, object]:
    console = Console(file=io.StringIO(), width=width)
    outcome = run_size_ap(*args, console=console, **more)
    return console.file.getvalue(), outcome


def rows_of(text: str, title: str) -> dict[str, list[str]]:
    """First words of the rows of a printed table to the others."""
    block = text[text.index(title) :].split("\n\n")[0]
    rows = {}
    for line in block.splitlines()[1:]:
        name, *words = line.split() or [""]
        if words and name not in rows:
            rows[name] = words
    return rows


def test_printed_numbers_are_the_results(files, drawn, tmp_path):
    ann, one, two = files
    out = tmp_path / "out"
    text, outcome = printed(ann, [one, two], str(out), Options(replicates=20), conditions=parse_conditions(
        ["small.AP < 1", "all.AP > 1"]))  # fmt: skip
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert outcome.files[0] == out / "report.html"
    assert len(outcome.files) == len([*out.iterdir()])
    assert f"written: {out / 'report.html'} and {len(outcome.files) - 1} more files" in text
    ap = 100 * found["runs"][1]["bins"][1]["ap"]
    assert outcome.failures == (f"small.AP < 1: it is {ap:.2f} (× 100)",)
    for result in found["runs"]:
        rows = rows_of(text, f"{result['name']}: box AP by object size (× 100)")
        errors = rows_of(text, f"{result['name']}: box AP50 gained if all errors of a type were fixed (× 100)")
        assert rows["bin"] == ["side", "=", "√area", "objects", "detections", "AP", "AP50", "AP75", "AR"]
        assert errors["bin"] == ["AP50", *ERROR_TYPES]
        for b in result["bins"]:
            name = b["bin"]["name"]
            numbers = [percent(b[m]) for m in METRICS]
            assert rows[name][-6:] == [f"{b['ground_truths']:,}", f"{b['detections']:,}", *numbers]
            limits = b["intervals"]["ap"]
            assert bracket(limits["low"], limits["high"]) in text
            assert errors[name] == [numbers[1], *(percent(share["gain"]) for share in b["errors"].values())]
    rows = rows_of(text, "two (second) minus one (first), × 100")
    for d in found["comparison"]["per_bin"]:
        if d["metric"] == "ap":
            shown = [percent(d["first"]), percent(d["second"]), percent(d["difference"], sign=True)]
            assert rows[d["of"]][:3] == shown
            assert bracket(d["interval"]["low"], d["interval"]["high"], sign=True) in text
    assert f"bins coco ({found['bins_reference']})" in text
    assert found["edge_rule"] in text
    unsettled = [s["of"] for s in found["comparison"]["settling"] if not s["settled"]]
    assert [line.split(":")[0] for line in text.splitlines() if "is not settled" in line] == unsettled


def test_printed_without_bootstrap_errors_and_objects(files, drawn, tmp_path):
    ann, one, two = files
    bins = "a=0:1e4,b=1e4:"
    text, outcome = printed(ann, [one, two], str(tmp_path / "out"), Options(bins=bins, errors=False, sweep=False))
    assert outcome.failures == ()
    assert "AP50 gained" not in text
    assert rows_of(text, "one: box AP by object size")["b"][-4:] == ["n/a"] * 4
    rows = rows_of(text, "two (second) minus one (first)")
    assert rows["b"] == ["n/a"] * 4
    assert rows["a"][3:] == ["n/a"]  # no probability
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert 'id="gallery"' not in page
    for examples, there in ((0, False), (1, True)):
        options = Options(sweep=False)
        printed(ann, [Seeds("m", (one, two)), two], str(tmp_path / "more"), options, examples=examples)
        page = (tmp_path / "more/report.html").read_text(encoding="utf-8")
        assert ("Failures shown" in page) == there
    assert "m: one: 1 of " in page
    assert "two: 1 of " in page


def test_a_data_set_alone_is_described(tmp_path, capsys, drawn):
    coco, _ = random_coco(0, images=2, classes=1)
    base = {"image_id": coco["images"][0]["id"], "category_id": coco["categories"][0]["id"], "iscrowd": 0}
    coco["annotations"] = [{**base, "id": i + 1, "bbox": [0, 0, side, side], "area": side * side}
                           for i, side in enumerate((4, 4, 4, 8, 8, 100))]  # fmt: skip
    (tmp_path / "ann.json").write_text(json.dumps(coco), encoding="utf-8")
    text, outcome = printed(str(tmp_path / "ann.json"), [], None, Options(bins="[x]=0:8,rest=8:", resize=(256, 192)))
    assert outcome.files == ()
    lines = text.splitlines()
    assert lines[0].startswith("6 objects in 2 images; square root of the annotation's 'area' field")
    assert [line.split() for line in lines[1:4]] == [["all", "all", "sizes", "6"], ["[x]", "<", "8", "px", "0"],
                                                    ["rest", "≥", "8", "px", "6"]]  # fmt: skip
    assert lines[4] == "objects by side = sqrt(area), px after resizing"
    bars = [(line[2:20].strip(), line.count("█"), line.split()[-1]) for line in lines[5:15]]
    assert bars == [
        ("8 to 11", 40, "3"), ("11 to 16", 0, "0"), ("16 to 23", 27, "2"), ("23 to 32", 0, "0"), ("32 to 45", 0, "0"),
        ("45 to 64", 0, "0"), ("64 to 91", 0, "0"), ("91 to 128", 0, "0"), ("128 to 181", 0, "0"),
        ("181 to 256", 13, "1"),
    ]  # fmt: skip
    assert any(line.startswith("anchors for a pyramid, in pixels after resizing (256x192): ") for line in lines)
    assert "written" not in text
    text, outcome = printed(str(tmp_path / "ann.json"), [], str(tmp_path / "out"), Options(), figures=("png",))
    assert {file.suffix for file in outcome.files} == {".html", ".json", ".md", ".tex", ".png", ".svg"}
    assert f"{outcome.files[0]} and 5 more files" in text
    coco["annotations"] = []
    (tmp_path / "ann.json").write_text(json.dumps(coco), encoding="utf-8")
    text, _ = printed(str(tmp_path / "ann.json"), [], None, Options())
    assert text.splitlines()[-1].split() == ["1", "to", "2", "0"]


@pytest.mark.parametrize(
    ("boxes", "size", "expected"),
    [
        ([[50, 40, 10, 10]], (200, 100), (39, 29, 32)),  # at least 32 px
        ([[50, 40, 20, 10]], (200, 100), (43, 28, 34)),  # 1.7 times the longer side
        ([[50, 40, 10, 20]], (200, 100), (38, 33, 34)),
        ([[10, 10, 10, 10], [40, 20, 20, 10]], (200, 100), (0, 0, 85)),
        ([[180, 90, 20, 10]], (200, 100), (166, 66, 34)),
        ([[0, 0, 20, 20]], (34, 33), (0, -7, 34)),
        ([[0, 0, 20, 20]], (0, 0), (-7, -7, 34)),
    ],
)
def test_windows_around_boxes(boxes, size, expected):
    assert window(boxes, size) == pytest.approx(expected)


def two_failures(truth) -> Failures:
    nan = np.nan
    return Failures(
        kind=np.array([0, 5]), in_bin=np.array([[True, True], [False, True]]), image=np.array([2, 0]),
        category=np.array([1, -1]), object_category=np.array([0, 2]), score=np.array([0.123456, nan]),
        iou=np.array([0.56789, nan]), box=np.array([[10.04, 20, 30, 8], [nan] * 4]),
        object_box=np.array([[12.0, 21, 28, 9], [2, 3, 40, 40]]), total=1234,
    )  # fmt: skip


def test_the_gallerys_data(tmp_path):
    truth = replace(data([(4, 4)]), file_names=("a.png", "b.png", "turned.png"))
    runs = [("one", two_failures(truth)), ("two", two_failures(truth))]
    bins = resolve_bins().bins[:2]
    gallery = make_gallery(truth, runs, bins, None)
    found = json.loads(gallery.json)
    assert gallery.sheets == ()
    assert gallery.remarks[0] == (
        "Failures shown, chosen by highest score in every size and type: one: 2 of 1,234; two: 2 of 1,234."
    )
    filters = {one["key"]: one for one in found["filters"]}
    assert filters["bin"] == {
        "key": "bin",
        "name": "bin",
        "values": ["all", "small"],
        "notes": ["all sizes", "< 32 px"],
    }
    assert (filters["run"]["values"], filters["class"]["values"]) == (["one", "two"], ["three", "five", "seven"])
    first = {
        "run": 0, "kind": 0, "bin": [0], "class": [1, 0], "score": 0.1235, "iou": 0.568, "area": 28.0 * 9,
        "box": [10.0, 20.0, 30.0, 8.0], "object": [12.0, 21.0, 28.0, 9.0], "tile": -1, "hover": "turned.png",
        "title": "classification: five, object: three",
        "lines": ["classification", "five, object: three", "score 0.12 · IoU 0.57"],
        "facts": [["image", "turned.png"], ["score", "0.12"], ["IoU", "0.57"], ["object", "12.0, 21.0, 28.0, 9.0"],
                  ["detection", "10.0, 20.0, 30.0, 8.0"], ["bins", "all"], ["run", "one"]],
    }  # fmt: skip
    missed = {
        "run": 0, "kind": 5, "bin": [0, 1], "class": [-1, 2], "score": None, "iou": None, "area": 1600.0,
        "box": None, "object": [2.0, 3.0, 40.0, 40.0], "window": [0.0, 0.0, 68.0], "tile": -1, "hover": "a.png",
        "title": "missed: seven", "lines": ["missed", "seven", "no detection"],
        "facts": [["image", "a.png"], ["object", "2.0, 3.0, 40.0, 40.0"], ["detection", "none"],
                  ["bins", "all, small"], ["run", "one"]],
    }  # fmt: skip
    assert found["items"][0].pop("window")[2] == pytest.approx(51, abs=0.1)
    assert found["items"][0] == first
    assert found["items"][1] == missed
    assert [item["run"] for item in found["items"]] == [0, 0, 1, 1]
    nameless = make_gallery(replace(truth, file_names=()), runs, bins, tmp_path)
    assert [item["hover"] for item in json.loads(nameless.json)["items"][:2]] == ["image 20", "image 30"]
    assert nameless.sheets == ()


def test_crops_of_turned_broken_and_small_pictures(tmp_path):
    """Picture 0 is a photograph stored on its side, as cameras do; picture 2 is not a picture."""
    truth = replace(data([(4, 4)]), image_sizes=np.array([[100, 200], [60, 40], [50, 50]]),
                    file_names=("a.jpg", "b.png", "c.png"))  # fmt: skip
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, :100] = (250, 0, 0)  # above, when it stands
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=100)
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    nan, n = np.full((4, 4), np.nan), np.zeros(4)
    boxes = np.array([[30.0, 40, 24, 24], [30, 140, 24, 24], [0, 0, 60, 40], [5, 5, 9, 9]])
    failures = Failures(np.array([5] * 4), np.ones((1, 4), bool), np.array([0, 0, 1, 2]), np.array([-1] * 4),
                        np.zeros(4, int), n, n, nan, boxes, 4)  # fmt: skip
    gallery = make_gallery(truth, [("r", failures)], resolve_bins().bins[:1], tmp_path)
    items = json.loads(gallery.json)["items"]
    assert [item["tile"] for item in items] == [0, 1, 2, -1]
    assert gallery.remarks[0].endswith(
        " 1 have no picture in the given folder that can be read, and are shown as boxes only."
    )
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(gallery.sheets[0])))).astype(int)
    tiles = [sheet[:120, 120 * i : 120 * (i + 1)] for i in range(3)]
    assert np.abs(tiles[0] - (250, 0, 0))[4:-8, 4:-8].max() < 30
    assert tiles[1][4:-8, 8:-8].max() < 30
    left, top, side = items[2]["window"]  # wider and higher than the picture
    assert (left, top, side) == (-21, -31, 102)
    scale = 120 / side
    inside = [round(v * scale) for v in (21, 31, 81, 71)]
    assert np.abs(tiles[2][inside[1] + 3 : inside[3] - 3, inside[0] + 3 : inside[2] - 3] - 200).max() < 12
    for part in (tiles[2][: inside[1] - 3], tiles[2][inside[3] + 3 :], tiles[2][:, : inside[0] - 3],
                 tiles[2][:, inside[2] + 3 :]):  # fmt: skip
        assert np.abs(part - 128).max() < 12
    none = make_gallery(truth, [("r", failures)], resolve_bins().bins[:1], tmp_path / "absent")
    assert none.sheets == ()
    assert " 4 have no picture" in none.remarks[0]


def test_regions_by_size_are_written_as_they_are(drawn, tmp_path):
    truth = np.zeros((40, 40), np.uint8)
    truth[2:8, 2:8], truth[20:38, 2:38] = 1, 2
    predicted = np.zeros_like(truth)
    predicted[2:8, 2:5], predicted[20:38, 2:38], predicted[10:14, 30:36] = 1, 2, 2
    regions = join_images([image_regions(truth, predicted, 4), image_regions(truth, truth, 4)])
    options = RegionOptions(bins="small=0:8,large=8:inf", replicates=30, seed=1, confidence=0.9)
    done = evaluate_regions(regions, ("background", "cat", "<b>dog</b>", "never"), options)
    files = write_region_report(done, tmp_path)
    assert files[0] == tmp_path / "size_iou.html"
    assert {f.name for f in files} == {f.name for f in tmp_path.iterdir()} == {
        "size_iou.html", "size_iou.json", "size_iou.csv", "size_iou_classes.csv", "size_iou_tables.md",
        "size_iou_tables.tex",
        "size_iou_per_bin.svg", "size_iou_classes.svg",
    }  # fmt: skip
    bins = (tmp_path / "size_iou.csv").read_text(encoding="utf-8").splitlines()
    assert bins[0] == (
        "bin,area_low_px2,area_high_px2,upper_limit_included,regions,stray,iou,iou_low,iou_high,recall,recall_low,"
        "recall_high,found,found_low,found_high"
    )
    small = done.bins[1]
    assert (small.iou, small.recall, small.found, small.regions, small.stray) == (0.75, 0.75, 1.0, 2, 1)
    limits = small.intervals["iou"]
    assert bins[2].startswith(f"small,0.0,64.0,False,2,1,0.75,{limits.low!r},{limits.high!r},0.75,")
    classes = (tmp_path / "size_iou_classes.csv").read_text(encoding="utf-8").splitlines()
    assert classes[0] == "class,bin,regions,stray,iou,recall,found"
    assert classes[5] == "cat,small,2,0,0.75,0.75,1.0"
    assert classes[8] == "<b>dog</b>,small,0,1,,,"
    assert len(classes) == 1 + 4 * 3
    text = text_of(files[0])
    for part in (
        "bins small < 8 px, large ≥ 8 px", "images 2 ", "uncertainty 30 image-bootstrap replicates, 90% intervals",
        "seed 1", "n: regions. Lines: 90% intervals of the image bootstrap (30 replicates).",
        "IoU per class and size, best class first",
    ):  # fmt: skip
        assert part in text
    markdown = (tmp_path / "size_iou_tables.md").read_text(encoding="utf-8")
    around = f"\\[{100 * limits.low:.1f}, {100 * limits.high:.1f}\\]"
    assert f"| small | &lt; 8 px | 2 | 75.0 {around} |" in markdown
    rows = [line.split(" | ")[0].strip("| ") for line in markdown.split("IoU per class")[1].splitlines() if "|" in line]
    assert rows == ["class", ":--|--:|--:|--:", "&lt;b&gt;dog&lt;/b&gt;", "background", "cat", "never"]
    assert np.array(heights(drawn["size_iou_per_bin"])) == pytest.approx(
        np.array([[one.iou for one in done.bins], [one.recall for one in done.bins]])
    )
    shown = [label.get_text() for label in drawn["size_iou_classes"].axes[0].get_yticklabels()]
    assert shown == ["<b>dog</b>", "background", "cat"]
    assert [label.get_text() for label in drawn["size_iou_per_bin"].axes[0].get_xticklabels()][
        1
    ] == "small\n< 8 px\nn = 2"
    drawn.clear()
    alone = evaluate_regions(join_images([image_regions(truth, truth, 1)]), ("background",), RegionOptions())
    text = text_of(write_region_report(alone, tmp_path / "alone")[0])
    assert set(drawn) == {"size_iou_per_bin"}
    assert "uncertainty no bootstrap" in text
    assert "Lines" not in text
    assert (tmp_path / "alone/size_iou.csv").read_text(encoding="utf-8").splitlines()[4].endswith(",0,0,,,,,,,,,")


def test_regions_in_no_bin_specks_and_other_labels():
    truth = np.zeros((30, 30), np.int16)
    truth[0:4, 0:4], truth[10:13, 0:5], truth[20, 20], truth[25, 25], truth[0, 29] = 1, 1, -1, 9, 4
    predicted = truth.copy()
    predicted[15, 15], predicted[14:18, 20:24] = 7, 1
    found, stray = image_regions(truth, predicted, 4, ignore_index=3)
    assert found[found[:, 0] == 1].tolist() == [[1, 16, 16, 0], [1, 15, 15, 0]]
    assert set(found[:, 0]) == {0, 1}
    assert found[found[:, 0] == 0].tolist() == [[0, 900 - 16 - 15 - 3, 900 - 16 - 15 - 3 - 17, 0]]
    assert stray.tolist() == [[1, 16]]
    with pytest.raises(ValueError, match=r"predicted \(30, 29\): must have the ground truth's shape \(30, 30\)"):
        image_regions(truth, predicted[:, :-1], 4)
    regions = join_images([(found, stray)])
    done = evaluate_regions(regions, ("a", "b"), RegionOptions(bins="one=0:4.1"))
    assert done.notes == (
        "1 regions of fewer than 16 px are left out (min_area)", "1 regions are in no bin but 'all'")  # fmt: skip
    assert [one.regions for one in done.bins] == [2, 1]
    assert done.bins[1].stray == 1
    assert evaluate_regions(regions, ("a", "b"), RegionOptions(min_area=15)).notes == ()
    assert evaluate_regions(regions, ("a", "b"), RegionOptions(min_area=17)).bins[0].stray == 0
    assert (done.replicates, done.seed, done.confidence, math.isinf(done.bins[0].bin.high)) == (0, 0, 0.95, True)
    half, whole = np.zeros((4, 8), int), np.ones((4, 8), int)
    half[:, :4] = 1
    assert evaluate_regions(join_images([image_regions(whole, half, 2)]), "ab", RegionOptions()).bins[0].found == 1
