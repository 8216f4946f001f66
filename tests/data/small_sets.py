"""A small COCO data set that each test spoils in its own way, and its checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmms_plugin.data.coco_file import CocoFile
from mmms_plugin.data.coco_set import read_splits
from mmms_plugin.data.own_data import OwnData

SIDE = 40, 30  # width, height


def picture(seed: int, size: tuple[int, int] = SIDE) -> Image.Image:
    """Noise, different for each seed."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8))


def coco_content(first: int = 0, count: int = 3, height: int = SIDE[1]) -> dict[str, Any]:
    """Annotations of ``count`` pictures with two objects each, a polygon and an RLE."""
    polygon = {"bbox": [4, 5, 10, 10], "area": 100, "segmentation": [[4, 5, 14, 5, 14, 15, 4, 15]], "category_id": 1}
    counts = [10 * height, 20, 30 * height - 20]  # 10 columns without, then 20 rows of one column, then the rest
    rle = {"bbox": [10, 0, 1, 20], "area": 20, "segmentation": {"size": [height, 40], "counts": counts}}
    objects = [polygon, {**rle, "category_id": 2}]
    return {
        "images": [
            {"id": i, "file_name": f"p{i}.jpg", "width": 40, "height": height} for i in range(first, first + count)
        ],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "stick"}],
        "annotations": [
            json.loads(json.dumps({"id": 1 + 2 * i + k, "image_id": i, "iscrowd": 0, **one}))
            for i in range(first, first + count)
            for k, one in enumerate(objects)
        ],
    }


def write_coco(folder: Path, content: dict[str, Any], ann: str, images: str, height: int = SIDE[1]) -> Path:
    """The annotation file, and the pictures it lists as JPEG or PNG; returns the file."""
    (folder / images).mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        picture(image["id"], (40, height)).save(folder / images / Path(image["file_name"]).name)
    path = folder / ann
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def read(folder: Path, masks: bool = True) -> CocoFile:
    own = OwnData("--coco-dir", folder, folder, split="train", training=False)
    return read_splits(own, masks=masks)["train"]


def one_picture(folder: Path, objects: list[dict[str, Any]], masks: bool = False, **more: Any) -> CocoFile:
    """A picture of 40 x 30 px with these objects, numbered from 1."""
    content = coco_content(count=1)
    sound = {"image_id": 0, "category_id": 1, "iscrowd": 0, "area": 9, "bbox": [4, 5, 10, 10]}
    content["annotations"] = [{"id": i, **sound, **entry} for i, entry in enumerate(objects, start=1)]
    content["categories"].pop()
    content.update(more)
    write_coco(folder, content, "train.json", "images")
    return read(folder, masks)


def examples(coco: CocoFile) -> dict[str, list[str]]:
    return {finding.code: list(finding.examples) for finding in coco.findings}
