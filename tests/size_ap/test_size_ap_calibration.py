"""Calibration by size: errors counted one by one, planted miscalibration that is found and mended, and its file."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from mmms_plugin.coco.objects import Detections, GroundTruth
from mmms_plugin.commands import main
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap import size_ap
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.kernel.calibration import PENALTY, fit, halves, logit, mapped
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.report.write import score_calibration
from mmms_plugin.size_ap.score_files import Limits, ScoreCalibration, Sizes, read_calibration
from tests.fuzz.size_ap import quick_figures
from tests.oracles.calibration import calibration_errors
from tests.size_ap.size_ap_data import in_memory, pycocotools_eval, random_coco

QUICK = dict(errors=False, sweep=False, calibration=True)
SMALL, LARGE = 20.0, 60.0  # px


def planted(detections: int, seed: int = 0, images: int = 400) -> tuple[GroundTruth, Detections]:
    """Boxes apart from each other; one of score s is right with probability s² if it is small, else sqrt(s)."""
    rng = np.random.default_rng(seed)
    cells = np.arange(detections) % 25  # per image, so that boxes never touch
    side, score = np.where(rng.random(detections) < 0.5, SMALL, LARGE), rng.random(detections)
    right = rng.random(detections) < np.where(side == SMALL, score**2, score**0.5)
    image = np.arange(detections) // 25
    assert image.max() < images
    corner = np.stack([cells % 5, cells // 5], 1) * 200.0
    boxes = np.column_stack([corner, side, side])
    ids = np.arange(images)
    truth = GroundTruth(
        image_ids=ids, image_sizes=np.full((images, 2), 1000), category_ids=np.array([1]), category_names=("x",),
        ids=np.arange(1, right.sum() + 1), image_id=image[right], category_id=np.ones(right.sum(), int),
        boxes=boxes[right], annotated_area=side[right] ** 2, iscrowd=np.zeros(right.sum(), bool),
    )  # fmt: skip
    return truth, Detections("run", image, np.ones(detections, int), boxes, score)


@pytest.mark.parametrize("levels", [None, 10], ids=["distinct scores", "scores on limits"])
def test_errors_are_those_counted_one_by_one(levels):
    """Which are right comes from pycocotools, without limits of size; sizes are those of the detections."""
    coco, results = random_coco(21, detections=20, levels=levels)
    for i, result in enumerate(results):
        result["id"] = i + 1
    truth, run = in_memory(coco, results)
    (found,) = evaluate(truth, [run], Options(**QUICK)).runs
    evaluation = pycocotools_eval(coco, results, ranges=[(0, 1e10)], thresholds=[0.5], max_dets=[100])
    listed = []
    for outcome in filter(None, evaluation.evalImgs):
        columns = (outcome[key] for key in ("dtIds", "dtScores"))
        for number, score, matched, ignored in zip(
            *columns, outcome["dtMatches"][0], outcome["dtIgnore"][0], strict=True
        ):
            box = results[int(number) - 1]["bbox"]
            if not ignored:
                listed.append((outcome["category_id"], box[2] * box[3], score, bool(matched)))
    ranges = {"all": (0, 1e10), "small": (0, 1024), "medium": (1024, 9216), "large": (9216, 1e10)}
    some = 0
    for cell in found.calibration.cells:
        low, high = ranges[cell.bin]
        own = [(score, right) for category, area, score, right in listed
               if low <= area <= high and cell.category in (None, f"class {category}")]  # fmt: skip
        assert cell.detections == len(own)
        assert [count for count, *_ in cell.levels] == np.histogram([s for s, _ in own], np.arange(11) / 10)[0].tolist()
        if not own:
            assert (cell.ece, cell.mce, cell.precision, cell.score) == (None, None, None, None)
            continue
        some += 1
        assert (cell.ece, cell.mce) == pytest.approx(calibration_errors(own), rel=1e-12)
        assert cell.precision == pytest.approx(np.mean([right for _, right in own]))
        assert cell.score == pytest.approx(np.mean([score for score, _ in own]))
    assert some > 10


def test_planted_bias_by_size_is_found_and_only_maps_by_size_mend_it():
    """Mean of |s - s²| and of |s - sqrt(s)| over [0, 1] is 1/6; together they nearly cancel."""
    truth, run = planted(10_000)
    (found,) = evaluate(truth, [run], Options(replicates=30, **QUICK)).runs
    ece = {cell.bin: cell.ece for cell in found.calibration.cells if cell.category is None}
    assert (ece["small"], ece["medium"]) == pytest.approx((1 / 6, 1 / 6), abs=0.015)
    assert ece["all"] < 0.04
    maps = {row.bin: row for row in found.calibration.maps}
    for name in ("small", "medium"):
        as_it_is, one, by_size = maps[name].errors
        assert as_it_is > 0.14
        assert one > 0.14
        assert by_size < 0.04
        assert maps[name].losses[2] < min(maps[name].losses[:2]) - 0.05
        assert maps[name].intervals["change"].high < -0.1
        assert maps[name].intervals["ece"].low < as_it_is < maps[name].intervals["ece"].high
    assert maps["all"].fitted + maps["all"].tested == 10_000
    assert maps["large"].fitted == 0
    assert (maps["large"].slope, maps["large"].offset) == (maps["all"].slope, maps["all"].offset)  # the one for all


def test_scores_that_are_probabilities_stay():
    rng = np.random.default_rng(1)
    score = rng.random(20_000)
    slope, offset = fit(score, rng.random(20_000) < score)
    assert (slope, offset) == (pytest.approx(1, abs=0.05), pytest.approx(0, abs=0.05))
    assert fit(score[:0], np.zeros(0, bool)) == (1, 0)
    for right in (np.ones(9, bool), np.zeros(9, bool)):  # separable: the penalty keeps it finite
        assert all(map(math.isfinite, fit(score[:9], right)))
    assert fit(score, rng.random(20_000) > score)[0] > 0  # worse than chance: the order is kept all the same


def test_the_fit_is_the_minimum_that_scipy_finds():
    rng = np.random.default_rng(2)
    score = np.append(rng.random(300), [0.0, 1.0])
    right = rng.random(302) < score**3

    def loss(pair):
        likely = mapped(score, *pair)
        penalty = PENALTY / 2 * ((pair[0] - 1) ** 2 + pair[1] ** 2)
        return -np.log(np.where(right, likely, 1 - likely)).sum() + penalty

    assert fit(score, right) == pytest.approx(minimize(loss, [1.0, 0.0], tol=1e-12).x, abs=1e-4)
    assert logit(mapped(score[:300], 1, 0)) == pytest.approx(logit(score[:300]))


def test_halves_are_halves_and_differ_by_seed():
    assert halves(101, 0).sum() == 51
    assert not np.array_equal(halves(101, 0), halves(101, 1))
    assert np.array_equal(halves(101, 1), halves(101, 1))


def test_scores_beyond_1_and_groups_are_refused():
    truth, run = planted(100)
    with pytest.raises(UserError, match=r"--calibration: run has scores from .* to 7; must be from 0 to 1"):
        evaluate(truth, [replace(run, scores=np.append(run.scores[1:], 7.0))], Options(**QUICK))
    nothing = replace(run, **{k: getattr(run, k)[:0] for k in ("image_id", "category_id", "boxes", "scores")})
    (found,) = evaluate(truth, [nothing], Options(replicates=2, **QUICK)).runs
    assert {cell.ece for cell in found.calibration.cells} == {None}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    coco, results = random_coco(22, images=10, classes=2)
    (folder / "ann.json").write_text(json.dumps(coco), encoding="utf-8")
    (folder / "pred.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def test_the_command_writes_maps_and_tables(files, tmp_path, capsys):
    arguments = ["--ann", str(files / "ann.json"), "--pred", str(files / "pred.json"), "--no-errors", "--gallery", "0"]
    with quick_figures(True):
        assert main(["size-ap", *arguments, "--calibration", "--bootstrap", "5", "--out", str(tmp_path)]) == 0
    assert "expected and maximum calibration error" in " ".join(capsys.readouterr().out.split())
    (run,) = size_ap(files / "ann.json", files / "pred.json", **QUICK).runs
    content = read_calibration(tmp_path / "calibration-1.json")
    assert content.maps == {row.bin: (row.slope, row.offset) for row in run.calibration.maps}
    boxes = np.array([[0, 0, 10, 10], [0, 0, 50, 50.0]])
    scores = content.apply(np.array([0.5, 0.5]), boxes, None, (128, 96))
    wanted = [mapped(np.array([0.5]), *content.maps[name])[0] for name in ("small", "medium")]
    assert scores == pytest.approx(wanted)
    lines = (tmp_path / "reliability.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 3 * 4 * 10  # all classes and two, by bin and interval of score
    assert {path.stem for path in tmp_path.glob("reli*.svg")} == {"reliability-1", "reliability_classes-1"}


def test_reliability_diagrams_draw_the_shares(files):
    results = size_ap(files / "ann.json", files / "pred.json", **QUICK)
    figure = results.plot("reliability")
    levels = [level for level in results.runs[0].calibration.cells[0].levels if level[0]]
    line = figure.axes[0].lines[1]
    np.testing.assert_allclose(line.get_xydata(), [(score, right) for _, score, right in levels])
    with pytest.raises(UserError, match="plot 'reliability': not evaluated; evaluate with calibration=True"):
        size_ap(files / "ann.json", files / "pred.json", errors=False, sweep=False).plot("reliability")
    assert score_calibration(results, results.runs[0]).run == "pred"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(kind="mmms score thresholds"), "kind: "),
        (lambda c: c["maps"].pop("all"), "maps has no 'all'"),
        (lambda c: c["maps"].update(all=[0.0, 1.0]), "a slope must be above 0"),
        (lambda c: c["maps"].update(all=[1.0, math.inf]), "not a number"),
        (lambda c: c["maps"].update(all=[1.0]), "maps"),
        (lambda c: c["maps"].update(gigantic=[1.0, 0.0]), "'gigantic' is not one of its bins"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, change, words):
    sizes = Sizes("box", "side", (Limits("low", 0, 400), Limits("high", 400, None)))
    content = json.loads(ScoreCalibration(sizes, {"all": (1.0, 0.0), "low": (2.0, 0.5)}).to_json())
    change(content)
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=words) as error:
        read_calibration(file)
    assert "\n" not in str(error.value)
