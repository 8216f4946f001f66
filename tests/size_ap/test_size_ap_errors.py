"""Error types: tidecv's figures over all sizes, known errors in their bins, a bootstrap that equals repeated images."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmms_plugin.coco.objects import Detections, GroundTruth
from mmms_plugin.size_ap.bins import resolve_bins
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.kernel import accumulate
from mmms_plugin.size_ap.kernel.bootstrap import draw
from mmms_plugin.size_ap.kernel.error_types import ErrorGains, error_gains
from mmms_plugin.size_ap.kernel.matching import find_candidates
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.results import ERROR_TYPES
from tests.golden.make_tidecv import CASES, RECORD, data
from tests.size_ap.size_ap_data import in_memory, random_coco

BINS = "small=0:32,large=32:"


def gains(truth: GroundTruth, run: Detections, iou_type: str = "bbox", **options: int) -> list[ErrorGains]:
    area = "annotation" if iou_type == "bbox" else "mask"
    return error_gains(find_candidates(truth, run, iou_type, area), resolve_bins(BINS).bins, iou_type, **options)[0]


@pytest.mark.parametrize(("seed", "iou_type"), CASES)
def test_over_all_sizes_counts_and_gains_are_tidecvs(monkeypatch, seed, iou_type):
    expected = json.loads(RECORD.read_text(encoding="utf-8"))[f"{seed} {iou_type}"]
    truth, run = in_memory(*data(seed, iou_type))
    usual = gains(truth, run, iou_type)[0]
    np.testing.assert_allclose(usual.gains, expected["gains"], atol=2e-3)  # recall levels that differ in the last bit
    monkeypatch.setattr(accumulate, "RECALLS", np.array([x / 100 for x in range(101)]))  # tidecv's
    found = gains(truth, run, iou_type)[0]
    assert found.ap50 == pytest.approx(expected["ap50"], abs=1e-12)
    assert found.counts.tolist() == expected["counts"]
    np.testing.assert_allclose(np.maximum(found.gains, 0), expected["gains"], atol=1e-12)


def one_error(kind: str, side: float) -> tuple[dict, list[dict]]:
    """Two images of two objects of ``side`` px; the detector makes one error with the second object."""
    boxes = [[10.0, 10.0, side, side], [10.0, 200.0, side, side]]
    images = [{"id": i, "width": 640, "height": 480} for i in (1, 2)]
    annotations = [
        {"id": 2 * i + j + 1, "image_id": i + 1, "category_id": j + 1, "bbox": box, "area": side * side, "iscrowd": 0}
        for i in range(2)
        for j, box in enumerate(boxes)
    ]
    results = [
        {**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.5 - 0.01 * a["id"]} for a in annotations
    ]
    x, y, *size = boxes[1]
    changes = {
        "classification": {"category_id": 1},
        "localisation": {"bbox": [x + 0.5 * side, y, *size]},
        "both": {"category_id": 1, "bbox": [x + 0.5 * side, y, *size]},
        "missed": {"bbox": [500.0, 200.0, 1.0, 1.0], "image_id": 1},
    }
    if kind in changes:
        results[-1].update(changes[kind])
    else:
        moved = {"duplicate": [x, y + 0.1 * side, *size], "background": [400.0, 100.0, side, side]}
        results.append({**results[-1], "bbox": moved[kind], "score": 0.49})
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in (1, 2)],
    }, results


@pytest.mark.parametrize("kind", ERROR_TYPES)
@pytest.mark.parametrize(("side", "bin_"), [(20.0, 1), (50.0, 2)])
def test_a_known_error_is_found_in_its_bin_alone(kind, side, bin_):
    found = gains(*in_memory(*one_error(kind, side)))
    at = ERROR_TYPES.index(kind)
    assert found[bin_].counts[at] == found[0].counts[at] == 1
    others = {"both": ("missed",), "missed": ("background",)}.get(kind, ())  # one comes with the other
    for k, name in enumerate(ERROR_TYPES):
        if name not in (kind, *others):
            assert found[bin_].counts[k] == 0
    if kind != "both":  # mended, the false one goes and the object stays missed
        assert found[bin_].ap50 + found[bin_].gains[at] == pytest.approx(1.0, abs=0.02)
    assert np.isnan(found[3 - bin_].ap50)
    assert np.isnan(found[3 - bin_].gains).all()


def test_a_draw_of_the_bootstrap_is_the_data_with_its_images_repeated():
    coco, results = random_coco(5, images=10, classes=3, detections=20, crowd=0.1)
    found = gains(*in_memory(coco, results), replicates=3, seed=7)
    order = sorted(image["id"] for image in coco["images"])
    for replicate in range(3):
        times = dict(zip(order, draw(len(order), 7, replicate).tolist(), strict=True))
        copies = [(image, copy) for image in order for copy in range(times[image])]
        again = {
            "images": [{"id": 1000 * image + copy} for image, copy in copies],
            "categories": coco["categories"],
            "annotations": repeated(coco["annotations"], copies),
        }
        expected = gains(*in_memory(again, repeated(results, copies)))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.draws[replicate], other.gains, atol=1e-12)


def repeated(items: list[dict], copies: list[tuple[int, int]]) -> list[dict]:
    return [
        {**item, "image_id": 1000 * image + copy, "id": item.get("id", 0) * 1000 + copy + 1}
        for image, copy in copies
        for item in items
        if item["image_id"] == image
    ]


def test_errors_reach_the_results_and_are_compared():
    coco, results = random_coco(3, images=12, classes=3, detections=20)
    truth, run = in_memory(coco, results)
    _, half = in_memory(coco, results[::2], "half")
    done = evaluate(truth, [run, half], Options(bins=BINS, replicates=20, sweep=False, thresholds=(0.75, 0.9)))
    expected = gains(truth, run)
    for found, one in zip(done.runs[0].bins, expected, strict=True):
        assert [found.errors[name].count for name in ERROR_TYPES] == one.counts.tolist()
        assert [found.errors[name].gain for name in ERROR_TYPES] == pytest.approx(one.gains.tolist())
        limits = found.errors["missed"].interval
        assert limits.low <= found.errors["missed"].gain <= limits.high
    assert len(done.comparison.per_error) == 3 * len(ERROR_TYPES)
    background = next(d for d in done.comparison.per_error if (d.of, d.metric) == ("all", "background"))
    assert background.difference == pytest.approx(background.second - background.first)
    assert evaluate(truth, [run], Options(errors=False)).runs[0].bins[0].errors == {}
