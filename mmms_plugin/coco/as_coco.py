"""Ground truth of other formats as the content of a COCO annotation file, which is what the hosts train on.

Its ids are those that `mmms_plugin.coco.references` understands in a list of results on the same labels: images have
the number that is their file's name, where all names are numbers; classes count from 1.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from mmms_plugin.coco.formats import Labels
from mmms_plugin.coco.references import MOST_DIGITS

DECIMALS = 6  # of a pixel: YOLO's shares of COCO's numbers become the same numbers again


def coco_content(labels: Labels) -> dict[str, Any]:
    """Images, categories and annotations as in COCO's files; areas are left out where masks have to be counted."""
    columns = labels.columns
    lists = (
        columns.id.tolist(), columns.image_id.tolist(), columns.category_id.tolist(), columns.boxes.tolist(),
        columns.iscrowd.tolist(), columns.segmentations or [None] * len(columns),
    )  # fmt: skip
    images = _image_ids(labels)
    classes = {category.id: i for i, category in enumerate(labels.categories, 1)}
    annotations = []
    for number, image, category, box, crowd, segmentation in zip(*lists, strict=True):
        record: dict[str, Any] = dict(
            id=number, image_id=images[image], category_id=classes[category], bbox=_rounded(box), iscrowd=int(crowd)
        )
        if isinstance(segmentation, list):
            record["segmentation"] = [_rounded(polygon) for polygon in segmentation]
        elif segmentation:
            record["segmentation"] = segmentation
        else:
            record["area"] = round(box[2] * box[3], DECIMALS)
        annotations.append(record)
    pictures = [
        dict(id=images[image.id], file_name=image.file_name, width=image.width, height=image.height)
        for image in labels.images
    ]
    categories = [dict(id=classes[category.id], name=category.name) for category in labels.categories]
    return dict(images=pictures, annotations=annotations, categories=categories)


def _image_ids(labels: Labels) -> dict[Any, int]:
    """The id in the file of each image."""
    stems = [PurePosixPath(image.file_name).stem for image in labels.images]
    if all(stem.isdecimal() and len(stem) < MOST_DIGITS for stem in stems) and len({*map(int, stems)}) == len(stems):
        return {image.id: int(stem) for image, stem in zip(labels.images, stems, strict=True)}
    return {image.id: i for i, image in enumerate(labels.images, 1)}


def _rounded(values: list[float]) -> list[float]:
    return [round(value, DECIMALS) for value in values]
