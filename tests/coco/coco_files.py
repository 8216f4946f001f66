"""A COCO annotation file, predictions for it, and ways to spoil both."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from pycocotools import mask as rle

from mmms_plugin.errors import UserError

WIDTH, HEIGHT, OBJECTS = 200, 150, 40


def square_rle(x: int, y: int, width: int, height: int) -> dict:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    return {"size": [HEIGHT, WIDTH], "counts": rle.encode(mask)["counts"].decode()}


def make_annotations() -> dict:
    """Four pictures, ids of categories with gaps as COCO's, and all three spellings of masks."""
    rng, annotations = np.random.default_rng(0), []
    for i in range(OBJECTS):
        width, height = (int(v) for v in rng.integers(8, 60, 2))
        x, y = int(rng.integers(0, WIDTH - width)), int(rng.integers(0, HEIGHT - height))
        polygon = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        compressed = square_rle(x, y, width, height)
        runs = [x * HEIGHT + y, *[height, HEIGHT - height] * (width - 1), height]
        uncompressed = {"size": [HEIGHT, WIDTH], "counts": [*runs, HEIGHT * WIDTH - sum(runs)]}
        one = dict(id=i + 1, image_id=10 * (i % 4 + 1), category_id=(1, 3, 90)[i % 3], bbox=[x, y, width, height])
        masks = (polygon, compressed, uncompressed)
        annotations.append(dict(one, area=width * height, iscrowd=0, segmentation=masks[i % 3]))
    return {
        "images": [dict(id=i, width=WIDTH, height=HEIGHT, file_name=f"{i}.png") for i in (40, 10, 20, 30)],
        "annotations": annotations,
        "categories": [dict(id=1, name="cat"), dict(id=90, name="dog"), dict(id=3, name="cow")],
    }


def make_predictions(annotations: dict) -> list[dict]:
    """The ground truth itself with falling scores; masks compressed."""
    return [
        dict(
            image_id=a["image_id"],
            category_id=a["category_id"],
            bbox=[float(v) for v in a["bbox"]],
            score=1 - i / 100,
            segmentation=square_rle(*a["bbox"]),
        )
        for i, a in enumerate(annotations["annotations"])
    ]


NAN = float("nan")


def with_first(records: list[dict], **changes: object) -> list[dict]:
    """The records with other values in the first one; None takes a value away."""
    changed = copy.deepcopy(records)
    for key, value in changes.items():
        changed[0][key] = value
        if value is None:
            del changed[0][key]
    return changed


def with_all(records: list[dict], key: str, change) -> list[dict]:
    return [dict(record, **{key: change(record[key])}) for record in records]


def with_some(records: list[dict], at, **columns: list) -> list[dict]:
    """The records with other values at some places."""
    changed = copy.deepcopy(records)
    for key, values in columns.items():
        for place, value in zip(at, values, strict=True):
            changed[place][key] = value
    return changed


def without(records: list[dict], at, *keys: str) -> list[dict]:
    changed = copy.deepcopy(records)
    for place in at:
        for key in keys:
            del changed[place][key]
    return changed


SCORED = dict(image_id=10, category_id=1, bbox=[1, 2, 3, 4], score=0.5)


GOOD = make_predictions(make_annotations())


def refused(start: str, message: str, call, *more: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert text.startswith(start)
    assert "\n" not in text
    for part in (message, *more):
        assert part in text
