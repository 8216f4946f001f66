"""``--baseline``: the comparison of methods on the same images; a damaged ``results.json`` is refused with one line."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mmms_plugin.coco.lvis import Federated
from mmms_plugin.coco.objects import Detections, GroundTruth, Method
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap import size_ap
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.gate import check_bins, parse_conditions, read_baseline
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.results import SizeAPResults
from tests.size_ap.size_ap_data import in_memory, random_coco
from tests.size_ap.test_size_ap_tables import run


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> SizeAPResults:
    folder = tmp_path_factory.mktemp("gate")
    for name, content in zip(("ann.json", "pred.json"), random_coco(3), strict=True):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return size_ap(folder / "ann.json", [folder / "pred.json"], bootstrap=20, errors=False)


def changed(content: Any, place: tuple[str | int, ...], value: object) -> Any:
    """A copy of JSON content with another value in one place."""
    copy = json.loads(json.dumps(content))
    at = copy
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return copy


def test_the_same_results_are_not_worse(results, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results.to_json()), encoding="utf-8")
    assert read_baseline(str(path)).failures(results) == ()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("runs",), []),
        (("runs", 0, "bins"), []),
        (("runs", 0, "bins"), {}),
        (("runs", 0, "bins", 1, "bin", "name"), "another"),
        (("runs", 0, "bins", 0, "bin"), None),
        (("runs", 0, "bins", 0, "ap"), 1e308),
        (("runs", 0, "bins", 0, "ap"), float("nan")),
        (("runs", 0, "bins", 0, "ap"), float("inf")),
        (("runs", 0, "bins", 0, "ap_draws", 3), float("-inf")),
        (("runs", 0, "bins", 0, "ap_draws", 3), 7),
        (("runs", 0, "bins", 0, "ap_draws", 3), 1.00000001),
        (("runs", 0, "bins", 0, "ap"), 1.00000001),
        (("runs", 0, "bins", 0, "ap"), -1e-12),
        (("runs", 0, "bins", 2, "ap_draws", 3), -1e-12),
        (("runs", 0, "bins", 0, "ap_draws"), [0.5]),
        (("runs", 0, "bins", 0, "ap_draws"), "x"),
        (("bins",), 5),
        (("bins",), [{}]),
        (("replicates",), 0),
        (("replicates",), float("inf")),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_damaged_baseline_is_refused_in_one_line(results, tmp_path, place, value):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(changed(results.to_json(), place, value)), encoding="utf-8")
    with pytest.raises(UserError, match=r"--baseline .*results\.json: .*must be a results\.json that") as caught:
        read_baseline(str(path)).failures(results)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("all.AP < 0.5", None),
        ("all.AP <= 0.5", "it is 50.00 (× 100)"),
        ("all.AP > 0.5", None),
        ("all.AP>=.5", "it is 50.00 (× 100)"),
        (" small.AR<1 ", "it is 35.00 (× 100)"),
        ("small.ap50 > 0.29", "it is 30.00 (× 100)"),
        ("small.ap75 < 0.1", "n/a, the bin has no"),
        ("small.missed >= 0.05", "it is 5.00 (× 100)"),
        ("small.Missed > 0.05", None),
        ("large.both < 1", "n/a, the bin has no"),
        ("a.b.AP < 1e-1", None),
    ],
)
def test_conditions_at_their_limits(text, failure):
    (condition,) = parse_conditions([text])
    judged = run("r", 0.0)
    if condition.bin == "a.b":
        bins = (replace(judged.bins[0], bin=replace(judged.bins[0].bin, name="a.b")),)
        judged = replace(judged, bins=(*judged.bins, *bins))
    found = condition.failure(judged)
    assert (found is None) == (failure is None)
    assert failure is None or found.startswith(f"{text.strip()}: {failure}")


@pytest.mark.parametrize(
    "text", ["small.AP", "small.AP = 0.2", ".AP < 0.2", "small < 0.2", "small.AP < 0.2 0.3", "", "x.AP <"]
)
def test_conditions_of_another_form_are_refused(text):
    with pytest.raises(UserError, match=r"^--fail-if .* must be BIN\.FIGURE < NUMBER \(or <=, >, >=\)"):
        parse_conditions(["all.AP < 1", text])


def test_conditions_on_what_is_not_evaluated_are_refused():
    conditions = parse_conditions(["all.AP < 1", "all.missed < 1"])
    check_bins(conditions, ["all"], True)
    check_bins(conditions[:1], ["all"], False)
    with pytest.raises(UserError, match=r"^--fail-if 'all\.missed < 1': error types are left out by --no-errors"):
        check_bins(conditions, ["all"], False)
    with pytest.raises(UserError, match=r"^--fail-if 'all\.AP < 1': 'all' is not a bin; there are a, b"):
        check_bins(conditions, ["a", "b"], True)
    with pytest.raises(UserError, match="'x' is not a number"):
        parse_conditions(["all.AP < x"])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("data", "0", "the annotations"),
        ("iou_type", "segm", "iou type"),
        ("area", "box", "area"),
        ("max_dets", 99, "max dets"),
        ("iou_thresholds", [0.5], "iou thresholds"),
        ("seed", 1, "seed"),
        ("seen", "px after resizing pictures (1333x800)", "--resize, --tiles or --bin-unit"),
        ("bins", None, "bins"),
    ],
)
def test_a_baseline_of_other_settings_is_refused(results, tmp_path, name, value, said):
    content = results.to_json()
    if name == "bins":
        content["bins"][1]["high"] += 1
    else:
        content[name] = value
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=rf"^--baseline .*results.json: {said} differ from this run's; both must be"):
        read_baseline(str(path)).failures(results)


@pytest.mark.parametrize(
    ("rest", "worse"), [(0.0, False), (0.0001, True), (None, False)], ids=["ends at zero", "below zero", "undefined"]
)
def test_only_an_interval_below_zero_fails(results, tmp_path, rest, worse):
    """Earlier draws that are all better, half of them by ``rest``."""
    content = results.to_json()
    found = content["runs"][0]["bins"][1]
    found["ap"] = None if rest is None else found["ap"] + 0.05
    more = [0.1, 0.0 if rest is None else rest] * 10
    found["ap_draws"] = [draw + gain for draw, gain in zip(found["ap_draws"], more, strict=True)]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    lines = read_baseline(str(path)).failures(results)
    assert len(lines) == worse
    if worse:
        now = results.runs[0].bins[1].ap
        start = (
            f"small.AP {100 * now:.2f} is below the baseline's {100 * now + 5:.2f} (pred, × 100): -5.00, 95% interval "
        )
        assert lines[0].startswith(start + "-10.00 to -0.0")


def test_shares_that_rounding_lifted_above_one_are_taken(results, tmp_path):
    content = changed(results.to_json(), ("runs", 0, "bins", 0, "ap_draws", 0), 1 + 1e-10)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_baseline(str(path)).failures(results) == ()


def method(name: str, truth: GroundTruth, skills: tuple[float, ...], seed: int) -> Method:
    """Perfect boxes of a share of the objects, and as many false ones elsewhere; one run for every skill."""
    rng, runs = np.random.default_rng(seed), []
    for skill in skills:
        found = rng.random(len(truth.boxes)) < skill
        boxes = np.where(found[:, None], truth.boxes, np.add(truth.boxes, (500.0, 0, 0, 0)))
        runs.append(Detections(name, truth.image_id, truth.category_id, boxes, rng.random(len(boxes))))
    return Method(name, tuple(runs))


@pytest.mark.parametrize(
    ("one", "two"),
    [((0.8,), (0.6,)), ((0.8, 0.75, 0.82), (0.6,)), ((0.8, 0.75, 0.82), (0.5, 0.52, 0.49))],
    ids=["runs", "group and run", "groups"],
)
def test_the_baseline_is_judged_as_methods_beside_each_other(tmp_path, one, two):
    truth, _ = in_memory(*random_coco(5, images=30, classes=2, crowd=0))
    before, after = method("before", truth, one, 1), method("after", truth, two, 2)
    options = Options(replicates=300, errors=False, sweep=False)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(evaluate(truth, [before], options).to_json()), encoding="utf-8")
    (line, *_) = read_baseline(str(path)).failures(evaluate(truth, [after], options))
    beside = next(d for d in evaluate(truth, [before, after], options).comparison.per_bin if d.metric == "ap")
    low, high = (float(word) / 100 for word in line.split("interval ")[1].split(" to "))
    width = beside.interval.high - beside.interval.low
    assert (low, high) == pytest.approx((beside.interval.low, beside.interval.high), abs=0.15 * width)
    assert read_baseline(str(path)).failures(evaluate(truth, [before], options)) == ()


def test_lviss_rules_are_part_of_the_data():
    truth, run = in_memory(*random_coco(3, crowd=0))
    options = Options(replicates=0, errors=False, sweep=False)
    negative, nothing = np.array([[1, 1]]), np.zeros((0, 2), np.int64)
    kinds = [None, Federated(negative, nothing, ("f",) * 4), Federated(nothing, negative, ("f",) * 4)]
    found = [evaluate(replace(truth, federated=kind), [run], options).data for kind in kinds]
    assert len(set(found)) == 3
