"""ELASTIC's table 4: groups, AP within them by pycocotools, F1 by counting labels image for image."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.options import Options
from tests.size_ap.size_ap_data import in_memory, pycocotools_eval, random_coco


def sizes_in(coco: dict, image: int) -> tuple[str, ...]:
    areas = [a["area"] for a in coco["annotations"] if a["image_id"] == image and not a["iscrowd"]]
    limits = {"small": (0, 1024), "medium": (1024, 9216), "large": (9216, 1e10)}
    return tuple(name for name, (low, high) in limits.items() if any(low <= area < high for area in areas))


def f1(coco: dict, results: list[dict], images: list[int], threshold: float) -> tuple[float, float]:
    per_class, pooled = [], np.zeros(3)
    for category in (c["id"] for c in coco["categories"]):
        there = {a["image_id"] for a in coco["annotations"] if a["category_id"] == category} & set(images)
        said = {r["image_id"] for r in results if r["category_id"] == category and r["score"] >= threshold} & set(
            images
        )
        counts = np.array([len(there & said), len(said - there), len(there - said)])
        pooled += counts
        if counts.sum():
            precision, recall = counts[0] / max(len(said), 1), counts[0] / max(len(there), 1)
            per_class.append(2 * precision * recall / max(precision + recall, 1e-12))
    return float(np.mean(per_class)), 2 * pooled[0] / (2 * pooled[0] + pooled[1] + pooled[2])


@pytest.fixture(scope="module")
def data() -> tuple[dict, list[dict], list[dict]]:
    coco, results = random_coco(31, images=60, classes=3, detections=12)
    for annotation in coco["annotations"]:  # fewer objects, so that every group has images
        annotation["iscrowd"] = int(annotation["iscrowd"] or annotation["id"] % 2)
    return coco, results, [{**r, "score": r["score"] ** 1.5} for r in results[::2]]


def test_groups_and_their_figures(data):
    coco, first, second = data
    truth, one = in_memory(coco, first, "one")
    comparison = evaluate(truth, [one, in_memory(coco, second, "two")[1]], Options(score_threshold=0.6)).comparison
    assert comparison is not None
    names = ("small", "medium", "large")
    wanted = [c for n in (1, 2, 3) for c in combinations(names, n)]
    assert [row.sizes for row in comparison.groups] == [*wanted, ("all images",)]
    every = [i["id"] for i in coco["images"]]
    for row in comparison.groups:
        images = [i for i in every if row.sizes in (("all images",), sizes_in(coco, i))]
        assert row.images == len(images) > 0
        for found, results in ((row.first, first), (row.second, second)):
            ap = pycocotools_eval(coco, results, images=images).stats[0]
            assert found["ap"] == pytest.approx(ap, abs=1e-9)
            assert (found["f1_per_class"], found["f1_overall"]) == pytest.approx(f1(coco, results, images, 0.6))
        for measure, gain in row.relative.items():
            assert gain == pytest.approx(row.second[measure] / row.first[measure] - 1)


def test_a_group_without_images_has_no_figures(data):
    coco, results, _ = data
    small = {**coco, "annotations": [{**a, "area": 10.0} for a in coco["annotations"]]}
    truth, run = in_memory(small, results)
    rows = {row.sizes: row for row in evaluate(truth, [run, run], Options()).comparison.groups}
    assert rows["large",].images == 0
    assert set(rows["large",].first.values()) == set(rows["large",].relative.values()) == {None}
    assert rows["small",].relative["f1_overall"] == 0
