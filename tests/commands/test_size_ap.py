"""`mmms size-ap` from files to report, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmms_plugin.commands import main
from mmms_plugin.errors import UserError
from mmms_plugin.files import files_written_together
from mmms_plugin.size_ap import size_ap
from mmms_plugin.size_ap.report.write import left_from_before
from tests.fuzz.size_ap import quick_figures
from tests.size_ap.size_ap_data import pycocotools_eval, random_coco, with_masks


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("size_ap")
    coco, results = random_coco(41, images=6, classes=3, detections=20)
    coco, masks = with_masks(coco, results)
    both = [{**m, "bbox": r["bbox"]} for m, r in zip(masks, results, strict=True)]
    for name, content in (("ann", coco), ("one", both), ("two", both[::2])):
        (folder / f"{name}.json").write_text(
            json.dumps(content, default=lambda counts: counts.decode()), encoding="utf-8"
        )
    return folder


def run(files: Path, out: Path, *more: str, preds: tuple[str, ...] = ("one",)) -> int:
    pred = [word for name in preds for word in ("--pred", str(files / f"{name}.json"))]
    return main(["size-ap", "--ann", str(files / "ann.json"), *pred, "--out", str(out), *more])


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_numbers_of_the_report_are_pycocotools(files, tmp_path, capsys, iou_type):
    assert run(files, tmp_path, "--iou-type", iou_type) == 0
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    found = json.loads((files / "one.json").read_text(encoding="utf-8"))
    if iou_type == "segm":
        found = [{k: v for k, v in r.items() if k != "bbox"} for r in found]
    expected = pycocotools_eval(json.loads((files / "ann.json").read_text(encoding="utf-8")), found, iou_type).stats
    ours = [-1 if v is None else v for v in results["runs"][0]["stats"].values()]
    assert ours == pytest.approx(expected.tolist(), abs=1e-9)
    with (tmp_path / "bins.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = next(name for name in rows[0] if name.lower() == "ap")
    assert float(rows[0][column]) == results["runs"][0]["bins"][0]["ap"]
    printed = capsys.readouterr().out
    rule = "box width x height" if iou_type == "bbox" else "the pixels of their mask"
    for text in (printed, (tmp_path / "report.html").read_text(encoding="utf-8"), json.dumps(results)):
        assert rule in text
        assert "exactly on a limit" in text
        assert "-1.0" not in text.partition("<script")[0]  # coordinates of the gallery may be


def test_without_a_folder_it_prints_the_pages_figures_and_writes_nothing(files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    preds = [word for name in ("one", "two") for word in ("--pred", str(files / f"{name}.json"))]
    common = ["size-ap", "--ann", str(files / "ann.json"), *preds, "--bootstrap", "5"]
    assert main(common) == 0
    printed = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    with quick_figures(True):
        assert main([*common, "--out", "out"]) == 0
    assert capsys.readouterr().out.startswith(f"{printed}written: {Path('out/report.html')} and ")
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    for words in re.findall(r"(?m)^(?:all|small|medium|large) +.*", printed):
        figures = re.findall(r"−?\d+\.\d\b|n/a", words)
        assert figures
        assert all(f">{figure}<" in page for figure in figures)
    assert "nan" not in printed.lower()
    assert "(× 100)" in printed


def test_two_runs_with_intervals(files, tmp_path, capsys):
    options = ["--bootstrap", "20", "--bins", "quantiles:3", "--area", "mask", "--names", "full", "half"]
    assert run(files, tmp_path, *options, preds=("one", "two")) == 0
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [r["name"] for r in results["runs"]] == ["full", "half"]
    assert results["area_rule"] == "area 'mask': ground truth and detections by the pixels of the mask"
    assert len(results["comparison"]["groups"]) == 8
    assert results["comparison"]["per_bin"][0]["interval"]["low"] < 0
    printed = capsys.readouterr().out
    assert "half (second) minus full (first)" in printed
    assert "P(Δ AP > 0)" in printed


def test_the_python_function_returns_what_the_command_reports(files, tmp_path):
    with quick_figures(True):
        assert run(files, tmp_path, "--bootstrap", "5", "--bins", "tiny", preds=("one", "two")) == 0
    found = size_ap(files / "ann.json", [files / "one.json", str(files / "two.json")], bins="tiny", bootstrap=5)
    assert found.to_json() == json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [run.name for run in size_ap(files / "ann.json", files / "one.json", names=["a"]).runs] == ["a"]
    with pytest.raises(UserError, match="bins"):
        size_ap(files / "ann.json", files / "one.json", bins="nonsense")


def test_the_python_function_passes_every_option_on(files):
    ann, one, two = (files / f"{name}.json" for name in ("ann", "one", "two"))
    usual = size_ap(str(ann), one)
    names = ("iou_type", "area", "bins_source", "max_dets", "replicates", "confidence", "seed")
    assert [getattr(usual, name) for name in names] == ["bbox", "annotation", "coco", 100, 0, 0.95, 0]
    assert (usual.runs[0].name, usual.comparison) == ("one", None)
    assert usual.runs[0].bins[0].errors
    assert usual.runs[0].sweep
    bins = "a=100:400,b=300:900,c=1000:"
    found = size_ap(
        ann, (one, two), names=("x", "y"), iou_type="segm", area="mask", bins=bins, bin_unit="area", allow_gaps=True,
        allow_overlaps=True, max_dets=7, bootstrap=3, confidence=0.8, seed=5, score_threshold=0.3, errors=False,
        sweep=False, format="coco", pred_format="coco",
    )  # fmt: skip
    assert [getattr(found, name) for name in names] == ["segm", "mask", bins, 7, 3, 0.8, 5]
    assert [(one.low, one.high) for one in found.bins[1:3]] == [(100, 400), (300, 900)]
    assert [(one.name, one.bins[0].errors, one.sweep) for one in found.runs] == [("x", {}, ()), ("y", {}, ())]
    assert found.comparison.score_threshold == 0.3
    assert size_ap(ann, (one, two)).comparison.score_threshold == 0.5
    for refused in ({"allow_gaps": False}, {"allow_overlaps": False}):
        with pytest.raises(UserError, match="is in"):
            size_ap(ann, one, bins=bins, **{"allow_gaps": True, "allow_overlaps": True} | refused)
    for name, option in (("format", "--format"), ("pred_format", "--pred-format")):
        with pytest.raises(UserError, match=f"{option} none"):
            size_ap(ann, one, **{name: "none"})


def test_it_loads_neither_torch_nor_a_host(files):
    code = (
        "import sys; from mmms_plugin.size_ap import size_ap; size_ap(*sys.argv[1:]);"
        "print([m for m in ('torch', 'mmengine', 'mmdet', 'mmcv', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(files / "ann.json"), str(files / "one.json")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_data_set_alone(files, tmp_path, capsys):
    assert run(files, tmp_path, "--bins", "tiny=0:16,rest=16:", preds=()) == 0
    assert (tmp_path / "object_sizes.html").is_file()
    assert "objects in 6 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "preds", "message"),
    [
        (["--bins", "a=0:20,b=10:30"], ("one",), "10 to 20 is in both (--allow-overlaps accepts that)"),
        (["--bins", "a=0:10,b=20:30"], ("one",), "10 to 20 is in no bin (--allow-gaps accepts that)"),
        (["--bootstrap", "-5"], ("one",), "--bootstrap -5: must be an integer from 0 to 100,000"),
        (["--confidence", "95"], ("one",), "--confidence 95.0: must be a number above 0 and at most 0.9999"),
        (["--confidence", "0.9999999999999999"], ("one",), "must be a number above 0 and at most 0.9999"),
        (["--seed", "-1"], ("one",), "--seed -1: must be an integer from 0"),
        (["--max-dets", "9" * 20], ("one",), "must be an integer from 1 to 1,000,000"),
        (["--resize", "1333"], (), "--resize 1333: must be WIDTHxHEIGHT, such as 1333x800"),
        (["--names", "a"], ("one", "two"), "--names a: must be one for each --pred (2)"),
        ([], ("one", "one"), "give them names with --names A B"),
        ([], ("one", "two", "one"), "give them names with --names A B"),
        ([], ("ann",), "this is a COCO annotation file without scores"),
        (["--ann", "nowhere.json"], ("one",), "no such file"),
    ],
)
def test_wrong_input_is_reported_in_one_line(files, tmp_path, capsys, arguments, preds, message):
    assert run(files, tmp_path / "out", *arguments, preds=preds) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in lines if line.startswith("mmms size-ap: error: ")]) == 1
    assert message in lines[-1]
    assert not (tmp_path / "out").exists()


def test_names_cannot_reach_the_terminal_as_commands_nor_a_spreadsheet_as_formulas(files, tmp_path, capsys):
    coco = json.loads((files / "ann.json").read_text(encoding="utf-8"))
    for category, name in zip(coco["categories"], ("=1+1", "-5", "\x1b[2J\ud800"), strict=True):
        category["name"] = name
    (tmp_path / "ann.json").write_text(json.dumps(coco), encoding="utf-8")
    changed = ["--ann", str(tmp_path / "ann.json"), "--names", "@SUM(A1)", "\x1b]0;title\x07"]
    with quick_figures(True):
        assert run(files, tmp_path / "out", *changed, preds=("one", "two")) == 0
    shown = "".join(capsys.readouterr()) + (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert {char for char in shown if not char.isprintable()} == {"\n"}
    assert "\\x1b]0;title\\x07" in shown
    with (tmp_path / "out/classes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["category"] for row in rows} == {"'=1+1", "'-5", "\\x1b[2J\\ud800"}
    assert rows[0]["run"] == "'@SUM(A1)"
    with (tmp_path / "out/differences.csv").open(encoding="utf-8") as file:
        assert any(float(row["difference"] or 0) < 0 for row in csv.DictReader(file))  # numbers stay numbers


def test_two_runs_into_one_folder_leave_the_files_of_one(tmp_path):
    with files_written_together(tmp_path / "out") as first:
        (first / "a").write_text("first", encoding="utf-8")
        with files_written_together(tmp_path / "out") as second:
            for name in "ab":
                (second / name).write_text("second", encoding="utf-8")
        (first / "b").write_text("first", encoding="utf-8")
    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out").iterdir()} == {
        "a": "first",
        "b": "first",
    }


def test_a_report_that_fails_half_way_leaves_nothing(files, tmp_path, capsys, monkeypatch):
    from mmms_plugin.report import page

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "to_latex", full)
    with quick_figures(True):
        assert run(files, tmp_path / "new/out") == 2
    assert not (tmp_path / "new").exists()
    assert capsys.readouterr().err.splitlines()[-1].endswith("cannot be written (No space left on device)")


@pytest.mark.needs(Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_behind_the_output_is_one_line(files):
    command = "import sys; from mmms_plugin.commands import main; sys.exit(main(sys.argv[1:]))"
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-c", command, "size-ap", "--ann", str(files / "ann.json")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr == "mmms size-ap: error: output cannot be written (No space left on device)\n"


@pytest.mark.parametrize(("bins", "names"), [("soda", ("relatively_small", "extremely_small")), ("tiny", ("tiny1",))])
def test_80_columns_hold_the_names_of_the_bins(files, tmp_path, capsys, monkeypatch, bins, names):
    monkeypatch.setenv("COLUMNS", "80")
    with quick_figures(True):
        assert run(files, tmp_path, "--bins", bins, "--bootstrap", "5") == 0
    lines = capsys.readouterr().out.splitlines()
    for name in names:
        assert any(line.split()[:1] == [name] for line in lines)


def test_anchors_are_for_original_pixels_unless_resizing_is_given(files, capsys):
    def anchors(*more: str) -> str:
        assert main(["size-ap", "--ann", str(files / "ann.json"), *more]) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("anchors"))

    assert "in pixels of the original pictures" in anchors()
    assert "in pixels after resizing (512x400)" in anchors("--resize", "512x400")  # 128 x 96 px: four times
    scale, larger = (
        float(text.split("scales=[")[1].split("]")[0]) for text in (anchors(), anchors("--resize", "512x400"))
    )
    assert larger == pytest.approx(4 * scale, rel=0.01)


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("small.AP < 0.99", 1),
        ("small.AP < 0.01", 0),
        ("all.missed >= 0", 1),
        ("all.AP50 > 1", 0),
        ("large.AR<0", 1),
        ("small.AP < 99%", 1),
        ("small.AP < 1%", 0),
    ],
)
def test_a_condition_that_holds_fails_the_run(files, tmp_path, capsys, condition, status):
    with quick_figures(True):
        assert run(files, tmp_path, "--fail-if", condition, "--fail-if", "all.AP > 1") == status
    printed = capsys.readouterr()
    failed = [line for line in printed.err.splitlines() if line.startswith("failed: ")]
    assert ("passed: no condition of --fail-if (2) holds" in printed.out) != status
    assert len(failed) == status
    assert all(condition in line for line in failed)
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fail-if", "small < 0.2"], "must be BIN.FIGURE < NUMBER"),
        (["--fail-if", "small.mAP < 0.2"], "'mAP' is not a figure; allowed are AP, AP50"),
        (["--fail-if", "small.AP < nan"], "'nan' is not a number"),
        (["--fail-if", "small.AP < 20"], "must be a share from -1 to 1; 20.0 in the tables is 0.20 or 20% here"),
        (["--fail-if", "small.AP < 101%"], "must be a share from -1 to 1"),
        (["--fail-if", "tiny.AP < 0.2"], "'tiny' is not a bin; there are all, small, medium, large"),
        (["--fail-if", "all.both < 0.2", "--no-errors"], "left out by --no-errors"),
        (["--baseline", "x.json"], "--baseline needs --bootstrap N"),
        (["--baseline", "x.json", "--bootstrap", "9"], "--baseline x.json: cannot be read"),
        (["--baseline", "ANN", "--bootstrap", "9"], "must be a results.json that"),
    ],
)
def test_conditions_that_cannot_be_judged_are_refused(files, tmp_path, capsys, options, message):
    options = [str(files / "ann.json") if word == "ANN" else word for word in options]
    assert run(files, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_bin_that_is_significantly_worse_than_the_baseline_fails_the_run(files, tmp_path, capsys):
    options = ["--bootstrap", "100", "--no-errors"]
    with quick_figures(True):
        assert run(files, tmp_path / "base", *options) == 0
        baseline = ["--baseline", str(tmp_path / "base/results.json")]
        assert run(files, tmp_path / "same", *options, *baseline) == 0
        assert "passed: no bin is significantly worse than in " in capsys.readouterr().out
        assert run(files, tmp_path / "worse", *options, *baseline, preds=("two",)) == 1
        text = capsys.readouterr().err
        assert run(files, tmp_path / "other", *options, *baseline, "--bins", "tiny") == 2
    assert "failed: all.AP " in text
    printed = capsys.readouterr()
    assert "bins differ from this run's" in printed.err
    assert "passed" not in printed.out
    pair = size_ap(files / "ann.json", [files / "one.json", files / "two.json"], bootstrap=100)
    limits = next(d for d in pair.comparison.per_bin if (d.of, d.metric) == ("all", "ap")).interval
    assert (
        f"interval {100 * limits.low:+.2f} to {100 * limits.high:+.2f}" in text
    )  # the paired bootstrap, without the predictions


def test_inputs_stay_and_files_of_an_earlier_report_are_named(files, tmp_path, capsys):
    every = ["--no-errors", "--thresholds", "--calibration", "--confusion", "--suspects", "9", "--bootstrap", "9"]
    with quick_figures(True):
        assert run(files, tmp_path, *every, "--figures", "png", preds=("one", "two")) == 0
        assert "earlier report" not in capsys.readouterr().err
        written = sorted(path.name for path in tmp_path.iterdir())
        assert sorted(left_from_before(tmp_path, [])) == written  # all of them are known as files of reports
        assert run(files, tmp_path, "--no-errors") == 0
    line = next(line for line in capsys.readouterr().err.splitlines() if "an earlier report left" in line)
    assert "calibration-1.json" in line
    assert "results.json" not in line
    before = (tmp_path / "results.json").read_bytes()
    for name, given in (("--baseline", ("--bootstrap", "9")), ("--pred", ())):
        assert run(files, tmp_path, name, str(tmp_path / "results.json"), *given) == 2
        assert f"{name} {tmp_path / 'results.json'}: the report would replace it" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_bytes() == before


def test_groups_and_runs_are_compared_with_the_first(files, tmp_path, capsys):
    one, two, other = (str(files / f"{name}.json") for name in ("one", "two", "ann2"))
    Path(other).write_text(json.dumps(json.loads(Path(one).read_text(encoding="utf-8"))[1::2]), encoding="utf-8")
    groups = ["--group", f"ps={one},{two}", "--pred", other, "--group", f"more={two},{other}"]
    with quick_figures(True):
        assert run(files, tmp_path / "out", *groups, "--bootstrap", "10", "--names", "plain", preds=()) == 0
    printed = capsys.readouterr()
    assert "plain (second) minus ps (first)" in printed.out
    assert "one seed only: plain" in printed.err
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert [(r["name"], [seed["name"] for seed in r["seeds"]]) for r in results["runs"]] == [
        ("ps", ["one", "two"]), ("plain", []), ("more", ["two", "ann2"]),
    ]  # fmt: skip
    comparisons = [results["comparison"], *results["more_comparisons"]]
    assert [(c["first"], c["second"]) for c in comparisons] == [("ps", "plain"), ("ps", "more")]
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert all(
        text in page
        for text in ("What would settle the difference: more minus ps", "ps: AP of each seed", "ps (2 seeds)")
    )
    with (tmp_path / "out/settling.csv").open(encoding="utf-8") as file:
        assert {(row["second_run"], row["bin"]) for row in csv.DictReader(file)} >= {("plain", "all"), ("more", "all")}
    with (tmp_path / "out/ap_against_size.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == "ps"]
    assert [float(row["side"]) for row in rows] == [point["side"] for point in results["runs"][0]["sweep"]]
    assert [row["ap_low"] and float(row["ap_low"]) for row in rows] == [
        "" if point["interval"]["low"] is None else point["interval"]["low"] for point in results["runs"][0]["sweep"]
    ]
    found = size_ap(files / "ann.json", {"ps": [one, two], "plain": other, "more": [two, other]}, bootstrap=10)
    assert found.to_json()["more_comparisons"] == results["more_comparisons"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--group", "ps"], "--group 'ps': must be NAME=FILE,FILE"),
        (["--group", "=a.json"], "must be NAME=FILE,FILE"),
        (["--group", "ps=a.json,"], "must be NAME=FILE,FILE"),
        (["--group", "ps=a.json,a.json"], "a file is given twice"),
        (["--group", "ps=a.json", "--group", "ps=b.json"], "two methods are called 'ps'"),
        (["--group", "ps=/nowhere/a.json"], "/nowhere/a.json"),
        (["--group", "ps=a.json", "--names", "A", "B"], "must be one for each --pred (1)"),
    ],
)
def test_groups_that_make_no_sense_are_refused(files, tmp_path, capsys, options, message):
    assert run(files, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
