"""Tables, CSV files and the text of the report: every figure in its cell, in the right order and spelling."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mmms_plugin.report.tables import Table
from mmms_plugin.size_ap.bins import Bin
from mmms_plugin.size_ap.report import tables
from mmms_plugin.size_ap.results import (
    ERROR_TYPES,
    METRICS,
    BinResult,
    ClassMatrix,
    Comparison,
    Difference,
    ErrorShare,
    GroupRow,
    Interval,
    RunResult,
    SeedResult,
    Settling,
    SizeAPResults,
    SizePoint,
)

BINS = (Bin("all", 0, math.inf), Bin("small", 0, 1024), Bin("large", 1024, math.inf))
NOTHING = Interval(None, None)


def run(name: str, more: float) -> RunResult:
    figures = [(0.5 + more, 0.7, 0.4, 0.6), (0.25, 0.3, None, 0.35), (None, None, None, None)]
    bins = []
    for one, values, objects in zip(BINS, figures, (1234, 1000, 0), strict=True):
        around = {
            m: NOTHING if v is None else Interval(v - 0.01, v + 0.02) for m, v in zip(METRICS, values, strict=True)
        }
        errors = {
            kind: ErrorShare(
                10 * i, None if objects == 0 else i / 100, NOTHING if objects == 0 else Interval(0, i / 50)
            )
            for i, kind in enumerate(ERROR_TYPES)
        }
        bins.append(BinResult(one, *values, objects, objects + 1, around, errors))
    ap = ((0.1, None, 0.2), (0.3, 0.4, None), (None, None, None))
    counts = ((1, 0, 2), (3000, 4, 0), (0, 0, 0))
    limits = tuple(tuple(NOTHING if v is None else Interval(v / 2, 2 * v) for v in row) for row in ap)
    matrix = ClassMatrix((5, 9, 12), ("cat", "dog", "none"), ap, ap, ap, ap, counts, counts, limits)
    sweep = (
        SizePoint(16.0, 8.0, 32.0, 0.4, 0.5, 9, Interval(0.3, 0.6)),
        SizePoint(64.0, 32.0, 128.0, None, None, 0, NOTHING),
    )
    seeds = (SeedResult("s1", (0.4, 0.2, None)), SeedResult("s2", (0.6, 0.3, None))) if more else ()
    return RunResult(name, tuple(bins), matrix, {"AP": 0.5 + more, "APl": None}, sweep, seeds)


def comparison(first: str, second: str, gain: float) -> Comparison:
    per_bin = tuple(
        Difference(one.name, m, first_, second_, None if second_ is None else gain + i / 1000, around, chance)
        for one, first_, second_, around, chance in zip(
            BINS, (0.5, 0.25, None), (0.5 + gain, 0.25, None), (Interval(-0.1, 0.2), None, None), (0.75, 0.0, None),
            strict=True,
        )
        for i, m in enumerate(METRICS)
    )  # fmt: skip
    classes = (("cat", -0.1), ("dog", 0.3), ("none", None))
    per_class = tuple(Difference(name, "ap", 0.2, 0.3, d, None, 1.0) for name, d in classes)
    some = {"ap": 0.2, "f1_per_class": 0.3, "f1_overall": None}
    groups = (
        GroupRow(("small", "large"), 1700, some, {**some, "ap": 0.25}, {**some, "ap": 0.25}),
        GroupRow(("all images",), 0, dict.fromkeys(some), dict.fromkeys(some), dict.fromkeys(some)),
    )
    per_error = tuple(
        Difference(one.name, kind, 0.0, 0.0, i / 100, Interval(0.01, 0.05), 0.5)
        for one in BINS
        for i, kind in enumerate(ERROR_TYPES)
    )
    settling = (
        Settling("all", 0.01, 0.02, 0.03, False, 12345, None),
        Settling("small", 0.011, 0.0, 0.0, True, None, None),
        Settling("large", 0.1, 0.2, 0.3, False, None, 7),
    )
    return Comparison(first, second, per_bin, per_class, groups, 0.3, per_error, settling)


@pytest.fixture(scope="module")
def results() -> SizeAPResults:
    runs = run("base", 0.0), run("better", 0.25), run("third", 0.125)
    return SizeAPResults(
        "bbox", "annotation", "the rule", BINS, "coco", "the reference", "the edges", 4321, 5678, 91, 100, (0.5, 0.75),
        1000, 0.95, 3, runs, comparison("base", "better", 0.25), (), "", (comparison("base", "third", 0.125),),
    )  # fmt: skip


def cells(table: Table) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in table.cells]


def test_tables_of_a_run(results):
    one = tables.bin_table(results, results.runs[1])
    assert (one.name, one.caption) == ("bins-2", "better: box AP by object size (× 100)")
    assert one.header == ("bin", "side = √area", "objects", "detections", "AP", "AP50", "AP75", "AR")
    assert cells(one) == [
        ["all", "all sizes", "1,234", "1,235", "75.0 [74.0, 77.0]", "70.0 [69.0, 72.0]", "40.0 [39.0, 42.0]",
         "60.0 [59.0, 62.0]"],
        ["small", "< 32 px", "1,000", "1,001", "25.0 [24.0, 27.0]", "30.0 [29.0, 32.0]", "n/a", "35.0 [34.0, 37.0]"],
        ["large", "≥ 32 px", "0", "1", "n/a", "n/a", "n/a", "n/a"],
    ]  # fmt: skip
    one = tables.error_table(results, results.runs[2])
    assert (one.name, one.header) == ("errors-3", ("bin", "AP50", *ERROR_TYPES))
    assert cells(one)[1:] == [
        ["small", "30.0", "0.0 [0.0, 0.0] (0)", "1.0 [0.0, 2.0] (10)", "2.0 [0.0, 4.0] (20)", "3.0 [0.0, 6.0] (30)",
         "4.0 [0.0, 8.0] (40)", "5.0 [0.0, 10.0] (50)"],
        ["large", "n/a", "n/a (0)", "n/a (10)", "n/a (20)", "n/a (30)", "n/a (40)", "n/a (50)"],
    ]  # fmt: skip
    one = tables.seed_table(results, results.runs[1])
    assert (one.name, one.header) == ("seeds-2", ("seed", "all", "small", "large"))
    assert cells(one) == [["s1", "40.0", "20.0", "n/a"], ["s2", "60.0", "30.0", "n/a"]]
    one = tables.class_table(results, results.runs[0])
    assert (one.name, one.header, one.folded) == ("classes-1", ("class", "all", "small", "large"), False)
    assert cells(one) == [  # best first, those without objects last
        ["dog", "30.0 (3,000)", "40.0 (4)", "n/a (0)"],
        ["cat", "10.0 (1)", "n/a (0)", "20.0 (2)"],
        ["none", "n/a (0)", "n/a (0)", "n/a (0)"],
    ]
    one = tables.stats_table(results)
    assert one.header == ("figure", "base", "better", "third")
    assert cells(one) == [["AP", "50.0", "75.0", "62.5"], ["APl", "n/a", "n/a", "n/a"]]
    assert "pycocotools" in one.caption
    lvis = replace(results, runs=tuple(replace(r, stats={**r.stats, "APr": 0.1}) for r in results.runs))
    assert "lvis-api" in tables.stats_table(lvis).caption
    assert tables.bin_table(replace(results, iou_type="segm"), results.runs[0]).caption.startswith("base: mask AP")


@pytest.mark.parametrize(("classes", "folded"), [(15, False), (16, True)])
def test_tables_of_more_than_15_classes_are_folded(results, classes, folded):
    columns = ((0.1,) * 3,) * classes
    matrix = ClassMatrix(tuple(range(classes)), ("c",) * classes, columns, columns, columns, columns, columns, columns)
    many = replace(results, runs=(replace(results.runs[0], classes=matrix),))
    assert tables.class_table(many, many.runs[0]).folded == folded
    difference = replace(results.comparison, per_class=results.comparison.per_class[:1] * classes)
    one = replace(results, comparison=difference)
    assert tables.class_difference_table(one, difference, [("c", 1)] * classes).folded == folded


def test_tables_of_a_comparison(results):
    first, second = results.comparisons
    one = tables.difference_table(results, first)
    assert one.name == "differences"
    assert tables.difference_table(results, second).name == "differences-2"
    assert one.header == ("bin", "AP, first", "AP, second", "Δ AP", "P(Δ AP > 0)", "Δ AP50", "Δ AP75", "Δ AR")
    assert one.caption == "better (second) minus base (first), × 100"
    around = "[−10.0, +20.0]"
    assert cells(one) == [
        ["all", "50.0", "75.0", f"+25.0 {around}", "0.750", f"+25.1 {around}", f"+25.2 {around}", f"+25.3 {around}"],
        ["small", "25.0", "25.0", "+25.0", "< 0.001", "+25.1", "+25.2", "+25.3"],
        ["large", "n/a", "n/a", "n/a", "n/a", "n/a", "n/a", "n/a"],
    ]
    one = tables.error_difference_table(results, second)
    assert (one.name, one.header) == ("error-differences-2", ("bin", *ERROR_TYPES))
    assert cells(one)[2][:3] == ["large", "0.0 [+1.0, +5.0]", "+1.0 [+1.0, +5.0]"]
    one = tables.class_difference_table(results, first, [("cat", 1), ("dog", 3000), ("none", 0)])
    assert one.name == "class-differences"
    assert cells(one) == [
        ["dog", "3,000", "20.0", "30.0", "+30.0", "> 0.999"],
        ["cat", "1", "20.0", "30.0", "−10.0", "> 0.999"],
        ["none", "0", "20.0", "30.0", "n/a", "> 0.999"],
    ]
    one = tables.group_table(results, first)
    assert (one.name, one.header) == (
        "image-groups", ("sizes in the image", "images", "AP", "F1 per class", "F1 overall")
    )  # fmt: skip
    assert cells(one) == [
        ["small + large", "1,700", "+25.0 (20.0 → 25.0)", "+30.0 (30.0 → 30.0)", "n/a"],
        ["all images", "0", "n/a", "n/a", "n/a"],
    ]
    half = replace(first, groups=(replace(first.groups[0], second=dict.fromkeys(first.groups[0].second)),))
    assert cells(tables.group_table(replace(results, comparison=half), half))[0][2] == "+25.0 (20.0 → n/a)"


def test_what_would_settle_a_difference(results):
    one = tables.settling_table(results, results.comparison)
    assert one.name == "settling"
    assert cells(one) == [
        ["all", "+25.0 [−10.0, +20.0]", "1.00", "2.00", "3.00", "no", "12,345", "n/a"],
        ["small", "+25.0", "1.10", "0.00", "0.00", "yes", "", ""],
        ["large", "n/a", "10.00", "20.00", "30.00", "no", "n/a", "7"],
    ]
    both = replace(results.comparison, settling=(
        *results.comparison.settling, Settling("x", 0, 0, 0, False, 5000, 6), Settling("y", 0, 0, 0, False, None, None),
    ))  # fmt: skip
    said = "the difference is not settled;"
    assert tables.settling_lines(both) == [
        f"all: {said} 12,345 images would settle it if it stays the same",
        f"large: {said} 7 seeds of each method would settle it if it stays the same",
        f"x: {said} 5,000 images or 6 seeds of each method would settle it if it stays the same",
        f"y: {said} even 1,000 times the data would not settle it",
    ]


@pytest.mark.parametrize(
    ("bin_", "label"),
    [
        (Bin("b", 0, 1024), "< 32 px"),
        (Bin("b", 0, math.inf), "all sizes"),
        (Bin("b", 0, 1e10, True), "all sizes"),
        (Bin("b", 0, 9.99e9, True), "< 99950 px"),
        (Bin("b", 1024, 1e10, True), "≥ 32 px"),
        (Bin("b", 144, 400.5, False, "area"), "144–400 px²"),
        (Bin("b", 2, 1e5, False), "1.41–316 px"),
        (Bin("b", 4, math.inf, False, "area"), "≥ 4 px²"),
    ],
)
def test_labels_of_bins(bin_, label):
    assert bin_.label == label


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "< 0.001"),
        (0.000499, "< 0.001"),
        (0.0005, "0.001"),
        (0.9994999, "0.999"),
        (0.9995, "> 0.999"),
        (0.5, "0.500"),
    ],
)
def test_probabilities(value, text):
    assert tables.probability(value) == text


def test_csv_files_row_by_row(results):
    how = "bbox,the rule"
    lines = tables.csv_files(results)["bins.csv"].splitlines()
    assert lines[0] == (
        "run,bin,area_low_px2,area_high_px2,upper_limit_included,ground_truths,detections,"
        "ap,ap_low,ap_high,ap50,ap50_low,ap50_high,ap75,ap75_low,ap75_high,ar,ar_low,ar_high,iou_type,area"
    )
    assert len(lines) == 1 + 9
    assert (
        lines[2] == f"base,small,0,1024,False,1000,1001,0.25,0.24,0.27,0.3,0.29,0.32,,,,0.35,{0.35 - 0.01},0.37,{how}"
    )
    assert lines[9] == f"third,large,1024,inf,False,0,1,,,,,,,,,,,,,{how}"
    lines = tables.csv_files(results)["classes.csv"].splitlines()
    assert lines[0] == (
        "run,category_id,category,bin,ground_truths,detections,ap,ap_low,ap_high,ap50,ap75,ar,iou_type,area"
    )
    assert len(lines) == 1 + 27
    assert lines[4] == f"base,9,dog,all,3000,3000,0.3,0.15,0.6,0.3,0.3,0.3,{how}"
    assert lines[11] == f"better,5,cat,small,0,0,,,,,,,{how}"
    bare = replace(
        results, runs=(replace(results.runs[0], classes=replace(results.runs[0].classes, ap_intervals=None)),)
    )
    assert tables.csv_files(bare)["classes.csv"].splitlines()[4] == f"base,9,dog,all,3000,3000,0.3,,,0.3,0.3,0.3,{how}"
    lines = tables.csv_files(results)["errors.csv"].splitlines()
    assert lines[0] == "run,bin,error,ap50,count,gain,gain_low,gain_high,iou_type,area"
    assert len(lines) == 1 + 3 * 3 * 6
    assert lines[8] == f"base,small,localisation,0.3,10,0.01,0,0.02,{how}"
    lines = tables.csv_files(results)["differences.csv"].splitlines()
    assert lines[0] == ("kind,of,metric,first,second,difference,low,high,p_positive,iou_type,area,first_run,second_run")
    assert len(lines) == 1 + 2 * (12 + 3 + 18)
    assert lines[1] == f"bin,all,ap,0.5,0.75,0.25,-0.1,0.2,0.75,{how},base,better"
    assert lines[13] == f"class,cat,ap,0.2,0.3,-0.1,,,1.0,{how},base,better"
    assert lines[17] == f"error,all,localisation,0.0,0.0,0.01,0.01,0.05,0.5,{how},base,better"
    assert lines[34] == f"bin,all,ap,0.5,0.625,0.125,-0.1,0.2,0.75,{how},base,third"
    lines = tables.csv_files(results)["settling.csv"].splitlines()
    assert lines[:2] == [
        "first_run,second_run,bin,sd_images,sd_seeds,sd_both,settled,images_needed,seeds_needed",
        "base,better,all,0.01,0.02,0.03,False,12345,",
    ]
    assert lines[6] == "base,third,large,0.1,0.2,0.3,False,,7"
    lines = tables.csv_files(results)["ap_against_size.csv"].splitlines()
    assert lines == [
        "run,side,side_low,side_high,ground_truths,ap,ap_low,ap_high,ar,iou_type,area",
        *(line for name in ("base", "better", "third")
          for line in (f"{name},16.0,8.0,32.0,9,0.4,0.3,0.6,0.5,{how}", f"{name},64.0,32.0,128.0,0,,,,,{how}")),
    ]  # fmt: skip
