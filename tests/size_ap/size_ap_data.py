"""Random and adversarial COCO data as dicts, pycocotools' answer, and the same data as the evaluation takes it."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmms_plugin.coco.objects import Detections, GroundTruth

HEIGHT, WIDTH = 96, 128
EDGES = [[32, 32], [16, 64], [96, 96], [64, 144], [1, 1], [1024, 1], [4, 4]]  # areas of exactly 1024, 9216, 1


def random_coco(
    seed: int,
    images: int = 12,
    classes: int = 4,
    crowd: float = 0.15,
    levels: int | None = None,
    detections: float = 60,
) -> tuple[dict, list[dict]]:
    """Annotations and results with unordered ids that have gaps, crowds, exact duplicates, areas on limits and ties.

    Args:
        levels: scores are rounded to so many steps, for ties; None for distinct scores.
    """
    rng = np.random.default_rng(seed)
    image_ids = (rng.permutation(images) * 7 + 3).tolist()
    category_ids = (rng.permutation(classes) * 3 + 2).tolist()
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in image_ids:
        here = [_object(rng, image, category_ids, crowd) for _ in range(rng.poisson(6) * (rng.random() < 0.85))]
        annotations += here
        for _ in range(rng.poisson(detections)):
            score = rng.random() if levels is None else rng.integers(levels) / levels
            box, category = _guess(rng, here, category_ids)
            results.append({"image_id": image, "category_id": category, "bbox": box, "score": float(score)})
    for i, place in enumerate(rng.permutation(len(annotations)).tolist()):
        annotations[place]["id"] = i + 1
    rng.shuffle(annotations)
    rng.shuffle(results)
    return _coco(image_ids, category_ids, annotations), results


def _coco(image_ids: list[int], category_ids: list[int], annotations: list[dict]) -> dict:
    images = [{"id": i, "width": WIDTH, "height": HEIGHT} for i in image_ids]
    categories = [{"id": i, "name": f"class {i}"} for i in category_ids]
    return {"images": images, "categories": categories, "annotations": annotations}


def _object(rng: np.random.Generator, image: int, category_ids: list[int], crowd: float) -> dict[str, Any]:
    exact = rng.random() < 0.3
    size = EDGES[rng.integers(len(EDGES))] if exact else np.exp(rng.normal(3.3, 0.9, 2)).tolist()
    box = [float(v) for v in (*np.round(rng.uniform(-4, WIDTH, 2)), *size)]
    area = box[2] * box[3] * (1.0 if exact else rng.uniform(0.4, 1.0))
    return {
        "image_id": image,
        "category_id": int(rng.choice(category_ids)),
        "bbox": box,
        "area": area,
        "iscrowd": int(rng.random() < crowd),
        "ignore": int(rng.random() < 0.2),
    }


def _guess(rng: np.random.Generator, here: list[dict], category_ids: list[int]) -> tuple[list[float], int]:
    if not here or rng.random() < 0.3:
        return [float(v) for v in (*rng.uniform(0, 90, 2), *np.exp(rng.normal(3.3, 0.9, 2)))], int(
            rng.choice(category_ids)
        )
    truth = here[rng.integers(len(here))]
    x, y, w, h = truth["bbox"]
    category = truth["category_id"] if rng.random() < 0.9 else int(rng.choice(category_ids))
    if rng.random() < 0.3:
        return [x, y, w, h], category
    shift = rng.normal(0, 0.12, 4)
    return [
        float(v) for v in (x + shift[0] * w, y + shift[1] * h, w * np.exp(shift[2]), h * np.exp(shift[3]))
    ], category


def with_masks(coco: dict, results: list[dict]) -> tuple[dict, list[dict]]:
    """The same with masks: ellipses and boxes of the boxes, cut at the border, and areas counted in pixels."""
    annotations = [{**a, "segmentation": _mask(a["bbox"], i % 3 == 0)} for i, a in enumerate(coco["annotations"])]
    for annotation in annotations:
        annotation["area"] = float(mask_utils.area(annotation["segmentation"]))
    found = [
        {k: v for k, v in r.items() if k != "bbox"} | {"segmentation": _mask(r["bbox"], i % 3 == 0)}
        for i, r in enumerate(results)
    ]
    return {**coco, "annotations": annotations}, found


def _mask(box: list[float], full: bool) -> dict[str, Any]:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    dx, dy = 2 * (x - box[0]) / box[2] - 1, 2 * (y - box[1]) / box[3] - 1
    inside = np.maximum(abs(dx), abs(dy)) <= 1 if full else dx**2 + dy**2 <= 1
    return mask_utils.encode(np.asfortranarray(inside.astype(np.uint8)))


def pycocotools_eval(
    coco: dict,
    results: list[dict],
    iou_type: str = "bbox",
    use_cats: int = 1,
    ranges: list[tuple[float, float]] | None = None,
    images: list[int] | None = None,
    thresholds: list[float] | None = None,
    max_dets: list[int] | None = None,
) -> COCOeval:
    """Evaluated and accumulated, with pycocotools' parameters or others, and summarised where it can."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = coco
        truth.createIndex()
        if results:
            found = truth.loadRes([dict(r) for r in results])
        else:
            found.dataset = {**coco, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, iou_type)
        evaluation.params.useCats = use_cats
        evaluation.params.imgIds = evaluation.params.imgIds if images is None else images
        evaluation.params.areaRng = ranges or evaluation.params.areaRng
        evaluation.params.maxDets = max_dets or evaluation.params.maxDets
        if thresholds is not None:
            evaluation.params.iouThrs = np.array(thresholds)
        evaluation.evaluate()
        evaluation.accumulate()
        if ranges is None and max_dets is None:
            evaluation.summarize()
    return evaluation


def in_memory(coco: dict, results: list[dict], name: str = "run") -> tuple[GroundTruth, Detections]:
    """The same data as arrays."""
    annotations = coco["annotations"]
    truth = GroundTruth(
        image_ids=_ints([i["id"] for i in coco["images"]]),
        image_sizes=np.tile([WIDTH, HEIGHT], (len(coco["images"]), 1)),
        category_ids=_ints([c["id"] for c in coco["categories"]]),
        category_names=tuple(c["name"] for c in coco["categories"]),
        ids=_ints([a["id"] for a in annotations]),
        image_id=_ints([a["image_id"] for a in annotations]),
        category_id=_ints([a["category_id"] for a in annotations]),
        boxes=_boxes(annotations),
        annotated_area=np.array([a["area"] for a in annotations], float),
        iscrowd=np.array([a["iscrowd"] for a in annotations], bool),
        rles=_masks(annotations),
    )
    run = Detections(
        name=name,
        image_id=_ints([r["image_id"] for r in results]),
        category_id=_ints([r["category_id"] for r in results]),
        boxes=_boxes(results),
        scores=np.array([r["score"] for r in results], float),
        rles=_masks(results),
    )
    return truth, run


def _ints(values: list[int]) -> np.ndarray:
    return np.array(values, np.int64)


def _boxes(items: list[dict]) -> np.ndarray:
    return np.array([i.get("bbox", [0, 0, 0, 0]) for i in items], float).reshape(-1, 4)


def _masks(items: list[dict]) -> tuple | None:
    return tuple(i["segmentation"] for i in items) if items and "segmentation" in items[0] else None
