"""With the preset 'coco' every figure is pycocotools', on random and adversarial data."""

from __future__ import annotations

import numpy as np
import pytest

from mmms_plugin.size_ap.bins import resolve_bins
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.kernel.accumulate import RECALLS, Accumulator, recall_at
from mmms_plugin.size_ap.kernel.matching import find_candidates, match
from mmms_plugin.size_ap.options import Options
from tests.size_ap.size_ap_data import in_memory, pycocotools_eval, random_coco, with_masks

RANDOM = [
    dict(levels=None),
    dict(levels=10),
    dict(levels=2, images=5),
    dict(levels=1, classes=1),
    dict(crowd=0.6, levels=5),
    dict(detections=350, classes=2, images=6, levels=40),
    dict(detections=1, images=30),
    dict(detections=3, images=4, classes=9),
]


def precision_table(accumulator):
    """``(bins, thresholds, classes, 101)`` precision at every recall level, NaN without objects."""
    objects = accumulator.objects()
    curves = accumulator._curves(None, objects)
    defined = np.where(objects > 0, 0.0, np.nan)[:, None, :, None]
    table = np.broadcast_to(defined, (*accumulator.shape, len(RECALLS))).copy()
    rows = np.repeat(accumulator._segments, accumulator._lengths)
    for row, precision, before, after in zip(rows, curves.envelope, curves.before, curves.after, strict=True):
        table.reshape(-1, len(RECALLS))[row, before:after] = precision
    return table


def assert_equal_to_pycocotools(coco, results, iou_type="bbox", use_cats=1):
    expected = pycocotools_eval(coco, results, iou_type, use_cats)
    truth, run = in_memory(coco, results)
    candidates = find_candidates(truth, run, iou_type, class_agnostic=not use_cats)
    matches = match(candidates, resolve_bins("coco").bins)
    scores = Accumulator(matches).scores()
    # pycocotools: (thresholds, recalls, classes, bins, max_dets) and -1 for undefined
    precision = expected.eval["precision"][..., -1].transpose(3, 0, 2, 1)
    np.testing.assert_allclose(
        np.nan_to_num(precision_table(Accumulator(matches)), nan=-1), precision, atol=1e-9, rtol=0
    )
    np.testing.assert_allclose(np.nan_to_num(scores.ap, nan=-1), precision.mean(-1), atol=1e-9, rtol=0)
    for place, max_det in enumerate((1, 10, 100)):
        recall = np.nan_to_num(recall_at(matches, max_det), nan=-1)
        np.testing.assert_allclose(recall, expected.eval["recall"][..., place].transpose(2, 0, 1), atol=1e-9, rtol=0)
    if use_cats:
        stats = evaluate(truth, [run], Options(iou_type=iou_type)).runs[0].stats
        ours = [-1 if value is None else value for value in stats.values()]
        names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
        assert list(stats) == names
        np.testing.assert_allclose(ours, expected.stats, atol=1e-9, rtol=0)


@pytest.mark.parametrize("use_cats", [1, 0])
@pytest.mark.parametrize("options", RANDOM, ids=lambda o: "-".join(f"{k}{v}" for k, v in o.items()))
def test_boxes(options, use_cats):
    for seed in range(3):
        assert_equal_to_pycocotools(*random_coco(seed, **options), use_cats=use_cats)


@pytest.mark.parametrize("options", RANDOM[:5], ids=lambda o: "-".join(f"{k}{v}" for k, v in o.items()))
def test_masks(options):
    assert_equal_to_pycocotools(*with_masks(*random_coco(11, **{"images": 5, **options})), iou_type="segm")


def _nothing_found(coco, results):
    return coco, []


def _nothing_there(coco, results):
    return {**coco, "annotations": []}, results


def _crowds_only(coco, results):
    return {**coco, "annotations": [{**a, "iscrowd": 1} for a in coco["annotations"]]}, results


def _class_without_objects(coco, results):
    return {**coco, "annotations": [a for a in coco["annotations"] if a["category_id"] != 2]}, results


def _class_unknown(coco, results):
    return {**coco, "categories": [c for c in coco["categories"] if c["id"] != 2]}, results


def _all_in_one_image(coco, results):
    first = coco["images"][0]["id"]
    moved = [{**a, "image_id": first} for a in coco["annotations"]]
    return {**coco, "annotations": moved}, [{**r, "image_id": first} for r in results]


def _truth_as_detections(coco, results):
    keys = ("image_id", "category_id", "bbox")
    return coco, [{k: a[k] for k in keys} | {"score": 0.5} for a in coco["annotations"]]


def _every_area_on_a_limit(coco, results):
    areas = [1024.0, 9216.0, 1024.0 + 1e-9, 9216.0 - 1e-9]
    return {**coco, "annotations": [{**a, "area": areas[i % 4]} for i, a in enumerate(coco["annotations"])]}, results


def _ids_from_zero(coco, results):
    """pycocotools takes a match with annotation 0 for none."""
    return {**coco, "annotations": [{**a, "id": i} for i, a in enumerate(coco["annotations"])]}, results


def _beyond_coco(coco, results):
    huge = [{**r, "bbox": [0.0, 0.0, 2e5, 1e5]} if i % 5 == 0 else r for i, r in enumerate(results)]
    return coco, huge


@pytest.mark.parametrize(
    "change",
    [
        _nothing_found,
        _nothing_there,
        _crowds_only,
        _class_without_objects,
        _class_unknown,
        _all_in_one_image,
        _truth_as_detections,
        _every_area_on_a_limit,
        _beyond_coco,
        _ids_from_zero,
    ],
)
def test_adversarial(change):
    assert_equal_to_pycocotools(*change(*random_coco(5, levels=6)))


def test_annotations_without_order_by_area_and_equal_overlaps():
    """Detections that cover several objects equally well: which one is taken decides what is left."""
    boxes = [[0, 0, 40, 40], [0, 0, 40, 40], [0, 0, 20, 40], [20, 0, 20, 40], [0, 0, 31, 31], [0, 0, 33, 33]]
    areas = [1600, 900, 800, 800, 961, 1089]
    coco, _ = random_coco(0, images=1, classes=1)
    base = {"image_id": 3, "category_id": 2}
    coco["annotations"] = [
        {**base, "id": i + 1, "bbox": b, "area": a, "iscrowd": int(i == 1)}
        for i, (b, a) in enumerate(zip(boxes, areas, strict=True))
    ]
    found = [[0, 0, 40, 40], [0, 0, 30, 40], [10, 0, 20, 40], [0, 0, 32, 32], [0, 0, 32, 32], [0, 0, 40, 40]]
    for scores in ([0.5] * 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]):
        results = [{**base, "bbox": b, "score": s} for b, s in zip(found, scores, strict=True)]
        assert_equal_to_pycocotools(coco, results)


def one_image(objects: list[tuple], found: list[tuple]) -> tuple[dict, list[dict]]:
    """One class in one image: (box, area) of objects, (box, score) of detections."""
    coco, _ = random_coco(0, images=1, classes=1)
    base = {"image_id": coco["images"][0]["id"], "category_id": coco["categories"][0]["id"]}
    coco["annotations"] = [
        {**base, "id": i + 1, "bbox": box, "area": area, "iscrowd": 0} for i, (box, area) in enumerate(objects)
    ]
    return coco, [{**base, "bbox": box, "score": score} for box, score in found]


def test_of_objects_overlapped_equally_the_later_is_taken():
    left, middle, right = [0, 0, 30, 10], [5, 0, 30, 10], [10, 0, 30, 10]
    for objects in ([left, right], [right, left]):
        coco, results = one_image([(box, 300) for box in objects], [(middle, 0.9), (right, 0.8)])
        assert_equal_to_pycocotools(coco, results)


def test_of_ignored_objects_the_best_is_taken():
    """A second detection finds the ignored object taken, and counts as false because its own size is in the bin."""
    ignored = [([0, 0, 30, 30], 2000), ([6, 0, 30, 30], 2000)]
    found = [([0, 0, 30, 30], 0.9), ([-8, 0, 30, 30], 0.8), ([60, 60, 20, 20], 0.7)]
    coco, results = one_image([*ignored, ([60, 60, 20, 20], 400)], found)
    assert_equal_to_pycocotools(coco, results)
    truth, run = in_memory(coco, results)
    small = evaluate(truth, [run], Options()).runs[0].bins[1]
    assert small.ap50 == pytest.approx(0.5)


def test_other_thresholds_and_numbers_of_detections():
    """IoU of nearly 1 passes the threshold 1; the best-scored detections up to the limit count, and no more."""
    thresholds, limits = [0.3, 0.5, 0.97, 1.0], [1, 2, 3]
    coco, results = random_coco(17, levels=12, classes=2)
    for result in results[::2]:
        result["bbox"][2] *= 1 + 1e-12
    expected = pycocotools_eval(coco, results, thresholds=thresholds, max_dets=limits).eval
    truth, run = in_memory(coco, results)
    matches = match(find_candidates(truth, run, max_dets=3, thresholds=tuple(thresholds)), resolve_bins("coco").bins)
    for place, max_det in enumerate(limits):
        accumulator = Accumulator(matches, None if max_det == limits[-1] else max_det)
        precision = np.nan_to_num(precision_table(accumulator), nan=-1)
        wanted = expected["precision"][..., place].transpose(3, 0, 2, 1)
        np.testing.assert_allclose(precision, wanted, atol=1e-9, rtol=0)
        recall = np.nan_to_num(accumulator.scores().recall, nan=-1)
        np.testing.assert_allclose(recall, expected["recall"][..., place].transpose(2, 0, 1), atol=1e-9, rtol=0)
