"""`mmms size-ap` from files to report, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from mmms_plugin.cli import main
from tests.analysis.size_ap_data import pycocotools_eval, random_coco, with_masks


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("size_ap")
    coco, results = random_coco(41, images=6, classes=3, detections=20)
    coco, masks = with_masks(coco, results)
    both = [{**m, "bbox": r["bbox"]} for m, r in zip(masks, results, strict=True)]
    for name, content in (("ann", coco), ("one", both), ("two", both[::2])):
        (folder / f"{name}.json").write_text(json.dumps(content, default=lambda counts: counts.decode()))
    return folder


def run(files: Path, out: Path, *more: str, preds: tuple[str, ...] = ("one",)) -> int:
    pred = [word for name in preds for word in ("--pred", str(files / f"{name}.json"))]
    return main(["size-ap", "--ann", str(files / "ann.json"), *pred, "--out", str(out), *more])


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_numbers_of_the_report_are_pycocotools(files, tmp_path, capsys, iou_type):
    assert run(files, tmp_path, "--iou-type", iou_type) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    found = json.loads((files / "one.json").read_text())
    if iou_type == "segm":
        found = [{k: v for k, v in r.items() if k != "bbox"} for r in found]
    expected = pycocotools_eval(json.loads((files / "ann.json").read_text()), found, iou_type).stats
    ours = [-1 if v is None else v for v in results["runs"][0]["stats"].values()]
    assert ours == pytest.approx(expected.tolist(), abs=1e-9)
    with (tmp_path / "bins.csv").open() as file:
        rows = list(csv.DictReader(file))
    column = next(name for name in rows[0] if name.lower() == "ap")
    assert float(rows[0][column]) == results["runs"][0]["bins"][0]["ap"]
    printed = capsys.readouterr().out
    rule = "box width x height" if iou_type == "bbox" else "the pixels of their mask"
    for text in (printed, (tmp_path / "report.html").read_text(), json.dumps(results)):
        assert rule in text
        assert "exactly on a limit" in text
        assert "-1.0" not in text


def test_two_runs_with_intervals(files, tmp_path, capsys):
    options = ["--bootstrap", "20", "--bins", "quantiles:3", "--area", "mask", "--names", "full", "half"]
    assert run(files, tmp_path, *options, preds=("one", "two")) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert [r["name"] for r in results["runs"]] == ["full", "half"]
    assert results["area_rule"] == "area 'mask': ground truth and detections by the pixels of the mask"
    assert len(results["comparison"]["groups"]) == 8
    assert results["comparison"]["per_bin"][0]["interval"]["low"] < 0
    printed = capsys.readouterr().out
    assert "half minus full" in printed
    assert "P(better)" in printed


def test_a_data_set_alone(files, tmp_path, capsys):
    assert run(files, tmp_path, "--bins", "tiny=0:16,rest=16:", preds=()) == 0
    assert (tmp_path / "object_sizes.html").is_file()
    assert "objects in 6 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "preds", "message"),
    [
        (["--bins", "a=0:20,b=10:30"], ("one",), "10 to 20 is in both (--allow-overlaps accepts that)"),
        (["--bins", "a=0:10,b=20:30"], ("one",), "10 to 20 is in no bin (--allow-gaps accepts that)"),
        (["--bootstrap", "-5"], ("one",), "--bootstrap -5: allowed are integers >= 0"),
        (["--confidence", "95"], ("one",), "--confidence 95.0: allowed is more than 0 and less than 1"),
        (["--names", "a"], ("one", "two"), "--names a: allowed is one for each --pred (2)"),
        ([], ("one", "one"), "--names A B tells them apart"),
        ([], ("one", "two", "one"), "--pred is given 3 times"),
        ([], ("ann",), "this is a COCO annotation file"),
        (["--ann", "nowhere.json"], ("one",), "no such file"),
    ],
)
def test_wrong_input_is_told_in_one_line(files, tmp_path, capsys, arguments, preds, message):
    assert run(files, tmp_path / "out", *arguments, preds=preds) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in lines if line.startswith("mmms size-ap: error: ")]) == 1
    assert message in lines[-1]
    assert not (tmp_path / "out").exists()
