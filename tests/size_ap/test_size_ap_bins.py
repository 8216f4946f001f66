"""Bins: published presets, quantiles and the user's own; what is refused; own bins against pycocotools' area ranges."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from mmms_plugin.errors import UserError
from mmms_plugin.size_ap.bins import CLOSED, HALF_OPEN, PRESETS, contains, resolve_bins
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.options import Options
from tests.size_ap.size_ap_data import in_memory, pycocotools_eval, random_coco


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("coco", [0, 32, 96, 1e5]),
        ("tiny", [2, 8, 12, 20, 32, math.inf]),
        ("ai-tod", [2, 8, 16, 32, 64]),
        ("soda", [0, 12, 20, 32, math.sqrt(2000)]),
    ],
)
def test_presets_are_the_published_limits(name, limits):
    found = resolve_bins(name)
    sides = [math.sqrt(b.low) for b in found.bins[1:]] + [math.sqrt(found.bins[-1].high)]
    assert sides == pytest.approx(limits)
    assert found.reference


@pytest.mark.parametrize("name", [*PRESETS, "a=0:8,b=8:20,c=20:", "quantiles:3"])
def test_every_object_counts_once_but_in_coco(name):
    areas = np.arange(1, 10_001, dtype=float)
    found = resolve_bins(name, areas=areas)
    inside = contains(found.bins[1:], areas)
    edges = {b.low for b in found.bins[1:]} & {b.high for b in found.bins[1:]} & set(areas)
    twice = set(areas[inside.sum(0) == 2])
    assert twice == (edges if name == "coco" else set())
    assert found.edge_rule == (CLOSED if name == "coco" else HALF_OPEN)
    for bin_ in found.bins[1:]:
        low, high = contains((bin_,), np.array([bin_.low, bin_.high]))[0]
        assert low
        assert high == (name == "coco")


@pytest.mark.parametrize("count", [2, 3, 7])
def test_quantiles_hold_equally_many_objects(count):
    areas = np.random.default_rng(0).permutation(np.exp(np.linspace(0, 9, 1000)))
    found = resolve_bins(f"quantiles:{count}", areas=areas)
    counts = contains(found.bins[1:], areas).sum(1)
    assert counts.sum() == 1000
    assert counts.max() - counts.min() <= 1


def test_units():
    side, area = resolve_bins("s=0:16,l=16:inf"), resolve_bins("s=0:256,l=256:inf", "area")
    assert [(b.low, b.high) for b in side.bins] == [(b.low, b.high) for b in area.bins]
    assert side.bins[1].label == "< 16 px"
    assert area.bins[2].label == "≥ 256 px²"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cocoo", "--bins 'cocoo': allowed are coco"),
        ("a=0:10,b=12:20", "between 'a' and 'b', side = sqrt(area) in px, 10 to 12 is in no bin"),
        ("a=0:10,b=8:20", "8 to 10 is in both"),
        ("a=0:30,b=5:10,c=30:40", "5 to 10 is in both"),
        ("a=0:10,a=10:20", "the name 'a' is taken"),
        ("all=0:10", "the name 'all' is taken"),
        ("a=10:10", "needs 0 <= LOW < HIGH"),
        ("a=-1:10", "needs 0 <= LOW < HIGH"),
        ("a=nan:10", "needs 0 <= LOW < HIGH"),
        ("a=0:ten", "are not numbers"),
        ("a=0:1e200", "the upper limit of 'a=0:1e200' is too large"),
        ("a=0-10", "is not NAME=LOW:HIGH"),
        ("quantiles:1", "an integer N from 2 to 100"),
        ("quantiles:101", "an integer N from 2 to 100"),
        ("quantiles:5", "fewer than bins"),
        ("quantiles:3", "the same size"),
    ],
)
def test_wrong_bins_are_refused_in_one_line(text, message):
    with pytest.raises(UserError) as caught:
        resolve_bins(text, areas=np.full(4, 9.0))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_gaps_and_overlaps_are_accepted_when_asked_for():
    found = resolve_bins("a=0:10,b=5:12,c=20:30", allow_gaps=True, allow_overlaps=True)
    assert contains(found.bins, np.array([49.0, 225.0, 625.0])).tolist() == [
        [True] * 3,
        [True, False, False],
        [True, False, False],
        [False, False, True],
    ]


def test_own_bins_equal_pycocotools_with_those_area_ranges():
    """Areas that are on no limit: there both edge rules agree."""
    coco, results = random_coco(21, levels=30)
    coco["annotations"] = [{**a, "area": a["area"] + 0.123} for a in coco["annotations"]]
    edges = [0, 300.5, 900.5, 2500.5, 1e10]
    found = pycocotools_eval(coco, results, ranges=list(pairwise(edges)))
    truth, run = in_memory(coco, results)
    bins = "a=0:300.5,b=300.5:900.5,c=900.5:2500.5,d=2500.5:"
    matrix = evaluate(truth, [run], Options(bins=bins, bin_unit="area")).runs[0].classes
    expected = found.eval["precision"][..., -1].mean((0, 1))  # (classes, bins)
    ours = np.array([[-1 if v is None else v for v in row[1:]] for row in matrix.ap])
    np.testing.assert_allclose(ours, expected, atol=1e-9, rtol=0)


def test_area_by_box_and_by_annotation_are_told_apart():
    coco, results = random_coco(22)
    halved = {**coco, "annotations": [{**a, "area": a["bbox"][2] * a["bbox"][3] / 2} for a in coco["annotations"]]}
    truth, run = in_memory(halved, results)
    by_box, by_annotation = (evaluate(truth, [run], Options(area=area)) for area in ("box", "annotation"))
    boxes = np.array([a["bbox"][2] * a["bbox"][3] for a in coco["annotations"] if not a["iscrowd"]])
    for results_, areas in ((by_box, boxes), (by_annotation, boxes / 2)):
        counts = [b.ground_truths for b in results_.runs[0].bins]
        assert counts == contains(results_.bins, areas).sum(1).tolist()
    assert "box width x height" in by_box.area_rule
    assert "annotation's 'area' field" in by_annotation.area_rule
    with pytest.raises(UserError, match="hold no masks"):
        evaluate(truth, [run], Options(area="mask"))
