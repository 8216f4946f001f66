"""Made-up ground truth and detections with known statistics, for the benchmarks of speed and coverage.

Images are drawn independently from one population: a Poisson number of objects of a few of its classes, log-normal
sizes, a difficulty of the image that correlates its objects, one good and some poor boxes per detected object, and
background boxes with lower scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.objects import Detections, GroundTruth

WIDTH, HEIGHT = 640, 480
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Population:
    """What images are drawn from.

    Attributes:
        objects, detections: expected number per image.
        classes: categories, the first the most frequent.
        present: number of classes that may occur in one image.
        skill: shifts boxes and scores; 1 is a fair detector, more is better.
    """

    objects: float = 7.2
    detections: float = 100.0
    classes: int = 80
    present: int = 4
    skill: float = 1.0


COCO_VAL = Population()
SMALL = Population(objects=4.0, detections=10.0, classes=2, present=2)


def simulate(
    images: int, population: Population = COCO_VAL, seed: int = 0, run: int | None = None
) -> tuple[GroundTruth, Detections]:
    """``images`` random images of ``population``; the same seed gives the same ones.

    Different ``run`` numbers on the images of one seed differ as detectors trained with different random seeds do: they
    share objects and difficulties, but not luck.
    """
    rng = np.random.default_rng(seed)
    frequency = 1.0 / np.arange(1, population.classes + 1)
    palette = rng.choice(population.classes, (images, population.present), p=frequency / frequency.sum())
    image = np.repeat(np.arange(images), rng.poisson(population.objects, images))
    category = palette[image, rng.integers(population.present, size=len(image))]
    boxes = _boxes(rng, len(image))
    ids = np.arange(1, len(image) + 1)
    truth = GroundTruth(
        image_ids=np.arange(1, images + 1),
        image_sizes=np.tile([WIDTH, HEIGHT], (images, 1)),
        category_ids=np.arange(1, population.classes + 1),
        category_names=tuple(f"class {i}" for i in range(1, population.classes + 1)),
        ids=ids,
        image_id=image + 1,
        category_id=category + 1,
        boxes=boxes,
        annotated_area=boxes[:, 2] * boxes[:, 3] * rng.uniform(0.5, 0.9, len(image)),
        iscrowd=rng.random(len(image)) < 0.01,
    )
    difficulty = rng.normal(0, 0.7, images)
    own = rng if run is None else np.random.default_rng([seed, run])
    return truth, _detect(own, truth, palette, population, difficulty)


def as_coco(truth: GroundTruth, run: Detections) -> tuple[dict, list[dict]]:
    """The contents of a COCO annotation file and a result file, for pycocotools."""
    images = [
        {"id": i, "width": w, "height": h}
        for i, (w, h) in zip(truth.image_ids.tolist(), truth.image_sizes.tolist(), strict=True)
    ]
    categories = [{"id": i, "name": n} for i, n in zip(truth.category_ids.tolist(), truth.category_names, strict=True)]
    columns = (truth.ids, truth.image_id, truth.category_id, truth.boxes, truth.annotated_area, truth.iscrowd)
    names = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    annotations = [dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]
    columns = (run.image_id, run.category_id, run.boxes, run.scores)
    keys = ("image_id", "category_id", "bbox", "score")
    results = [dict(zip(keys, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]
    for annotation in annotations:
        annotation["iscrowd"] = int(annotation["iscrowd"])
    return {"images": images, "categories": categories, "annotations": annotations}, results


def _boxes(rng: np.random.Generator, count: int) -> Floats:
    side = np.exp(rng.normal(4.0, 0.9, count)).clip(4, 400)
    aspect = np.exp(rng.normal(0, 0.3, count))
    width, height = side * aspect, side / aspect
    x, y = rng.uniform(0, 1, (2, count))
    return np.stack((x * (WIDTH - width).clip(1), y * (HEIGHT - height).clip(1), width, height), 1)


def _detect(
    rng: np.random.Generator, truth: GroundTruth, palette: Ints, population: Population, difficulty: Floats
) -> Detections:
    images = len(truth.image_ids)
    # larger objects are detected more often and more exactly
    ease = population.skill + 0.5 * (np.log(truth.boxes[:, 2]) - 4) - difficulty[truth.image_id - 1]
    detected = np.flatnonzero(rng.normal(0, 1, len(truth)) < ease)
    copies = np.repeat(detected, 1 + rng.poisson(0.4 * population.detections / population.objects / 4, len(detected)))
    first = np.r_[True, copies[1:] != copies[:-1]] if len(copies) else np.zeros(0, bool)
    spread = np.where(first, 0.06, 0.25) * np.exp(-0.4 * ease[copies])
    shift = rng.normal(0, 1, (len(copies), 4)) * spread[:, None]
    size = truth.boxes[copies, 2:]
    near = np.concatenate((truth.boxes[copies, :2] + shift[:, :2] * size, size * np.exp(shift[:, 2:])), 1)
    near_score = rng.normal(0.8 * ease[copies] - 1.5 * ~first, 1)
    background = max(round(population.detections * images) - len(copies), 0)
    place = rng.integers(images, size=background)
    kind = palette[place, rng.integers(population.present, size=background)] + 1
    far_score = rng.normal(-1.5 + 0.5 * difficulty[place], 1)
    return Detections(
        name="simulated",
        image_id=np.concatenate((truth.image_id[copies], place + 1)),
        category_id=np.concatenate((truth.category_id[copies], kind)),
        boxes=np.concatenate((near, _boxes(rng, background))),
        scores=1 / (1 + np.exp(-np.concatenate((near_score, far_score)))),
    )
