"""``--baseline``: the comparison of methods on the same images; a damaged ``results.json`` is refused with one line."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mmms_plugin.analysis.size_ap import size_ap
from mmms_plugin.analysis.size_ap.evaluate import evaluate
from mmms_plugin.analysis.size_ap.gate import read_baseline
from mmms_plugin.analysis.size_ap.kernel.data import Detections, GroundTruth, Method
from mmms_plugin.analysis.size_ap.options import Options
from mmms_plugin.analysis.size_ap.reading.lvis import Federated
from mmms_plugin.analysis.size_ap.results import SizeAPResults
from mmms_plugin.errors import UserError
from tests.analysis.size_ap_data import in_memory, random_coco


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
    low, high = (float(word.rstrip(",")) for word in line.split("interval ")[1].split(" to "))
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
