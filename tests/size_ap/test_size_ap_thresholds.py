"""Score thresholds by bin and class: those of a loop over pycocotools' matches, and the file that keeps them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from mmms_plugin.commands import main
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap import size_ap
from mmms_plugin.size_ap.bins import resolve_bins
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.kernel.accumulate import Accumulator
from mmms_plugin.size_ap.kernel.matching import find_candidates, match
from mmms_plugin.size_ap.kernel.operating_points import Goal, Ranked
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.report.write import score_calibration, score_thresholds
from mmms_plugin.size_ap.resizing import Step
from mmms_plugin.size_ap.score_files import Limits, ScoreThresholds, Sizes, read_both, read_thresholds
from tests.fuzz.size_ap import quick_figures
from tests.oracles.operating_points import best_threshold
from tests.size_ap.size_ap_data import in_memory, pycocotools_eval, random_coco, with_masks

BINS = [(0.0, 1e10), (0.0, 700.0), (700.0, 1e10)]
NAMES = "low=0:700,high=700:1e10"


def outcomes(coco, results, low, high, iou_type="bbox"):
    """By class: score and hit of every detection that counts, and number of objects, as pycocotools matches them."""
    evaluation = pycocotools_eval(coco, results, iou_type, ranges=[(low, high)], thresholds=[0.5], max_dets=[100])
    by_class = {category: ([], 0) for category in evaluation.params.catIds}
    for found in filter(None, evaluation.evalImgs):
        detections, objects = by_class[found["category_id"]]
        for score, matched, ignored in zip(found["dtScores"], found["dtMatches"][0], found["dtIgnore"][0], strict=True):
            if not ignored:
                detections.append((score, bool(matched)))
        by_class[found["category_id"]] = (detections, objects + int((np.array(found["gtIgnore"]) == 0).sum()))
    return by_class


@pytest.mark.parametrize("levels", [None, 6], ids=["distinct scores", "ties"])
@pytest.mark.parametrize(
    ("options", "goal", "wanted"),
    [
        ({}, "f1", 0),
        (dict(precision=0.6), "precision", 0.6),
        (dict(precision=1.0), "precision", 1.0),
        (dict(recall=0.5), "recall", 0.5),
    ],
    ids=str,
)
def test_equal_to_trying_every_score(levels, options, goal, wanted):
    coco, results = random_coco(11, levels=levels, detections=9)
    truth, run = in_memory(coco, results)
    options = dict(bins=NAMES, bin_unit="area", errors=False, sweep=False, operating=True, **options)
    (found,) = evaluate(truth, [run], Options(**options)).runs
    points = {(p.bin, p.category): p for p in found.operating.points}
    reached = 0
    for name, (low, high) in zip(("all", "low", "high"), BINS, strict=True):
        by_class = outcomes(coco, results, low, high - (high < 1e10) * 1e-9)
        merged = [d for detections, _ in by_class.values() for d in detections]
        everything = {None: (merged, sum(objects for _, objects in by_class.values()))}
        named = {f"class {category}": outcome for category, outcome in by_class.items()}
        for category, (detections, objects) in (everything | named).items():
            point, best = points[name, category], best_threshold(detections, objects, goal, wanted)
            assert point.objects == objects
            if best is None:
                assert (point.score, point.precision, point.recall, point.f1, point.kept) == (None, None, None, None, 0)
                continue
            reached += 1
            ours = (point.score, point.precision, point.recall, point.f1, point.kept, point.hits)
            assert ours == pytest.approx(best, rel=1e-12)
    assert reached >= 3


def test_curves_are_those_whose_mean_is_ap50_and_masks_count_by_their_pixels():
    coco, results = with_masks(*random_coco(12, detections=25))
    truth, run = in_memory(coco, results)
    options = Options(iou_type="segm", bins=NAMES, bin_unit="area", errors=False, sweep=False, operating=True)
    (found,) = evaluate(truth, [run], options).runs
    for b, curve in zip(found.bins, found.operating.curves, strict=True):
        assert np.mean(curve) == pytest.approx(b.ap50, abs=1e-12)
        assert (np.diff(curve) <= 1e-12).all()
    by_class = outcomes(coco, results, 0, 1e10, "segm")
    theirs = [best_threshold(detections, objects, "f1")[0] for detections, objects in by_class.values()]
    assert [p.score for p in found.operating.points if p.bin == "all" and p.category] == theirs
    others = evaluate(truth, [run], replace(options, thresholds=(0.75,)))  # IoU 0.5 is matched of its own
    assert others.runs[0].operating.points == found.operating.points


def test_a_bin_without_objects_has_no_threshold():
    coco, results = random_coco(13)
    truth, run = in_memory(coco, results)
    options = Options(bins="giant=900:inf,usual=0:900", errors=False, sweep=False, operating=True)
    (found,) = evaluate(truth, [run], options).runs
    giant = [p for p in found.operating.points if p.bin == "giant"]
    assert giant
    assert {(p.score, p.precision, p.objects) for p in giant} == {(None, None, 0)}
    assert set(found.operating.curves[2]) == {None}
    nothing = replace(run, **{k: getattr(run, k)[:0] for k in ("image_id", "category_id", "boxes", "scores")})
    (found,) = evaluate(truth, [nothing], replace(options, replicates=3)).runs
    assert {p.score for p in found.operating.points} == {None}


def test_a_draw_of_images_is_the_data_set_with_those_images():
    """Images of weight 2 are there twice, as in the bootstrap of AP."""
    coco, results = random_coco(14, images=6, levels=8)
    truth, _ = in_memory(coco, results)
    weights = np.array([2, 0, 1, 1, 0, 2], np.int32)
    ids = np.sort(truth.image_ids).tolist()
    copies = [(k, image + 1000 * k) for image, times in zip(ids, weights.tolist(), strict=True) for k in range(times)]
    drawn = {**coco, "images": [], "annotations": []}
    drawn_results = []
    for k, image in copies:
        drawn["images"].append({"id": image})
        for kind, items in (("annotations", coco["annotations"]), ("results", results)):
            own = [{**item, "image_id": image} for item in items if item["image_id"] == image - 1000 * k]
            (drawn["annotations"] if kind == "annotations" else drawn_results).extend(own)
    for i, annotation in enumerate(drawn["annotations"], 1):
        annotation["id"] = i
    bins = resolve_bins(NAMES, "area").bins
    whole, part = (match(find_candidates(*in_memory(*data), thresholds=(0.5,)), bins)
                   for data in ((coco, results), (drawn, drawn_results)))  # fmt: skip
    for merged in (False, True):
        for goal in (Goal(), Goal("precision", 0.5), Goal("recall", 0.3)):
            ours, theirs = Ranked(whole, 0, merged), Ranked(part, 0, merged)
            mine = ours.kept(ours.choose(goal, weights), weights)
            other = theirs.kept(theirs.choose(goal))
            np.testing.assert_allclose(mine.figures, other.figures, rtol=1e-12)
    assert Accumulator(whole).precision(0).shape == (3, 4, 101)


def test_intervals_hold_the_figures_of_draws():
    coco, results = random_coco(15, images=20)
    truth, run = in_memory(coco, results)
    options = Options(bins=NAMES, bin_unit="area", errors=False, sweep=False, operating=True, replicates=40, seed=3)
    point = evaluate(truth, [run], options).runs[0].operating.points[0]
    assert set(point.intervals) == {"score", "precision", "recall", "f1"}
    for name, limits in point.intervals.items():
        assert limits.low <= getattr(point, name) <= limits.high
        assert limits.low < limits.high


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thresholds")
    coco, results = random_coco(16, images=10)
    (folder / "ann.json").write_text(json.dumps(coco), encoding="utf-8")
    (folder / "pred.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def written(files):
    results = size_ap(files / "ann.json", files / "pred.json", errors=False, sweep=False, thresholds=True)
    return score_thresholds(results, results.runs[0]).to_json()


def test_the_command_writes_a_file_that_keeps_the_same_detections(files, tmp_path, capsys):
    arguments = ["--ann", str(files / "ann.json"), "--pred", str(files / "pred.json"), "--no-errors", "--gallery", "0"]
    with quick_figures(True):
        assert main(["size-ap", *arguments, "--thresholds", "--precision", "0.5", "--out", str(tmp_path)]) == 0
    assert "precision of at least 0.5 at IoU 0.5" in " ".join(capsys.readouterr().out.split())
    kept = read_thresholds(tmp_path / "thresholds-1.json")
    options = dict(errors=False, sweep=False, thresholds=True, precision=0.5)
    (run,) = size_ap(files / "ann.json", files / "pred.json", **options).runs
    points = {(p.bin, p.category): p for p in run.operating.points}
    for (bin_, category), point in points.items():
        table = kept.all_classes if category is None else kept.classes[category]
        assert table.get(bin_) == point.score
    detections = json.loads((files / "pred.json").read_text(encoding="utf-8"))
    names = [f"class {d['category_id']}" for d in detections]
    boxes = np.array([d["bbox"] for d in detections])
    boxes[:, 2:] += boxes[:, :2]
    scores = np.array([d["score"] for d in detections])
    mask = kept.keeps(names, scores, boxes, None, (128, 96))
    for i, detection in enumerate(detections):
        area = detection["bbox"][2] * detection["bbox"][3]
        bin_ = "small" if area <= 1024 else "medium" if area <= 9216 else "large"
        order = [(bin_, names[i]), (bin_, None), ("all", names[i]), ("all", None)]
        least = next(points[key].score for key in order if points[key].score is not None)
        assert mask[i] == (scores[i] >= least)
    assert 0 < mask.sum() < len(mask)
    header = (tmp_path / "thresholds.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith("run,category,bin,score,score_low,score_high,precision")


def test_thresholds_follow_the_sizes_of_the_evaluation(files, tmp_path):
    options = dict(errors=False, sweep=False, thresholds=True, bin_unit="relative", tiles=64)
    results = size_ap(files / "ann.json", files / "pred.json", **options)
    (tmp_path / "t.json").write_text(score_thresholds(results, results.runs[0]).to_json(), encoding="utf-8")
    kept = read_thresholds(tmp_path / "t.json")
    boxes = np.array([[0, 0, 3.1, 3.1], [0, 0, 3.3, 3.3], [0, 0, 13, 13]])  # of 64 px: 0.048, 0.052, 0.203
    assert kept.sizes.names(boxes, None, (640, 480)) == ["small", "medium", "large"]
    assert kept.sizes.names(boxes / 2, None, (32, 32)) == ["small", "medium", "large"]
    resized = replace(kept.sizes, unit="side", tiles=None, steps=(Step("stretch", 256, 128),))
    areas = np.array([1.0, 0.01])
    assert replace(resized, of="mask").names(boxes[:2], areas, (128, 128)) == ["large", "medium"]  # of 2 and 0.02


def test_missing_thresholds_are_replaced_by_the_nearest_there_are():
    sizes = Sizes("box", "side", (Limits("low", 0, 400), Limits("high", 400, None)))
    full = ScoreThresholds(sizes, {"all": 0.1, "low": 0.2}, {"a": {"all": 0.3, "low": 0.4}, "b": {"all": 0.5}})
    least = {(name, bin_): full.least(name, bin_) for name in "abc" for bin_ in ("low", "high", "all")}
    assert least == {
        ("a", "low"): 0.4, ("a", "high"): 0.3, ("a", "all"): 0.3,
        ("b", "low"): 0.2, ("b", "high"): 0.5, ("b", "all"): 0.5,
        ("c", "low"): 0.2, ("c", "high"): 0.1, ("c", "all"): 0.1,
    }  # fmt: skip
    assert full.lowest == 0.09999  # scores are compared at five decimals
    assert full.keeps(["c"], np.array([0.099996]), np.array([[0, 0, 50, 50.0]]), None, (60, 60)).all()
    some = replace(full, all_classes={"low": 0.2})
    assert (some.least("c", "high"), some.lowest) == (-math.inf, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(kind="other"), "kind: "),
        (lambda c: c["all_classes"].update(all="high"), "all_classes"),
        (lambda c: c["sizes"].update(unit="furlong"), "unit"),
        (lambda c: c["sizes"]["bins"][0].update(low=9, high=3), "0 <= low < high"),
        (lambda c: c["sizes"]["bins"][-1].update(low=-1, high=None), "0 <= low < high"),
        (lambda c: c["sizes"].update(steps=[dict(kind="melt", width=1, height=1)]), "a step that is not known"),
        (lambda c: c["sizes"].update(tiles=[0, 9]), "at least 1 px"),
        (lambda c: c["classes"].update(x={"gigantic": 0.5}), "'gigantic' is not one of its bins"),
        (lambda c: c["all_classes"].update(all=math.nan), "not a number"),
        (lambda c: c.clear(), "has no"),
    ],
)
def test_damaged_files_are_one_line(written, tmp_path, change, words):
    content, file = json.loads(written), tmp_path / "thresholds-1.json"
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=words) as error:
        read_thresholds(file)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"--thresholds {file}: ")


def test_classes_of_one_name_have_no_thresholds(files, tmp_path, capsys):
    coco = json.loads((files / "ann.json").read_text(encoding="utf-8"))
    coco["categories"][0]["name"] = coco["categories"][1]["name"] = "ball"
    (tmp_path / "ann.json").write_text(json.dumps(coco), encoding="utf-8")
    arguments = ["size-ap", "--ann", str(tmp_path / "ann.json"), "--pred", str(files / "pred.json"), "--no-errors"]
    assert main(arguments) == 0
    assert "note: ann.json: category names that are listed twice: 1 ('ball')" in capsys.readouterr().err
    assert main([*arguments, "--thresholds"]) == 2
    assert "--thresholds: several categories are called 'ball'" in capsys.readouterr().err


def test_thresholds_of_the_scores_that_maps_change_are_refused(files, tmp_path):
    pred = json.loads((files / "pred.json").read_text(encoding="utf-8"))
    (tmp_path / "mapped.json").write_text(json.dumps([{**d, "score": d["score"] / 2} for d in pred]), encoding="utf-8")
    options = dict(errors=False, sweep=False, thresholds=True, calibration=True)
    results = size_ap(files / "ann.json", [files / "pred.json", tmp_path / "mapped.json"], **options)
    maps, raw, later = (tmp_path / f"{name}.json" for name in ("maps", "raw", "later"))
    maps.write_text(score_calibration(results, results.runs[0]).to_json(), encoding="utf-8")
    for file, run in ((raw, results.runs[0]), (later, results.runs[1])):
        file.write_text(score_thresholds(results, run).to_json(), encoding="utf-8")
    with pytest.raises(UserError, match=rf"^--thresholds {re.escape(str(raw))}: of the scores before --calibration"):
        read_both(maps, raw)
    assert read_both(maps, later)[1] == read_thresholds(later)


def test_there_are_no_scores_without_predictions(files, capsys):
    for option in ("--thresholds", "--calibration"):
        assert main(["size-ap", "--ann", str(files / "ann.json"), option]) == 2
        assert f"{option}: needs a --pred, whose scores it is about" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "0.9"], "--precision: needs --thresholds"),
        (["--thresholds", "--precision", "0.9", "--recall", "0.5"], "--precision and --recall: give one of them"),
        (["--thresholds", "--recall", "1.5"], "--recall 1.5: must be a number above 0 and at most 1"),
        (["--thresholds", "--group", "g={pred},{pred2}"], "--thresholds: a threshold is for the scores of one run"),
    ],
)
def test_wrong_options_are_one_line(files, tmp_path, capsys, arguments, words):
    (tmp_path / "pred2.json").write_bytes((files / "pred.json").read_bytes())
    given = [a.format(pred=files / "pred.json", pred2=tmp_path / "pred2.json") for a in arguments]
    assert main(["size-ap", "--ann", str(files / "ann.json"), "--pred", str(files / "pred.json"), *given]) == 2
    assert words in capsys.readouterr().err
