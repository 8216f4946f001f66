"""Ground truth of other formats as the content of a COCO annotation file, which is what the hosts train on."""

from __future__ import annotations

from typing import Any

from mmms_plugin.coco.formats import Labels

DECIMALS = 6  # of a pixel: YOLO's shares of COCO's numbers become the same numbers again


def coco_content(labels: Labels) -> dict[str, Any]:
    """Images, categories and annotations as in COCO's files; areas are left out where masks have to be counted."""
    columns = labels.columns
    lists = (
        columns.id.tolist(), columns.image_id.tolist(), columns.category_id.tolist(), columns.boxes.tolist(),
        columns.iscrowd.tolist(), columns.segmentations or [None] * len(columns),
    )  # fmt: skip
    annotations = []
    for number, image, category, box, crowd, segmentation in zip(*lists, strict=True):
        record = dict(id=number, image_id=image, category_id=category, bbox=_rounded(box), iscrowd=int(crowd))
        if isinstance(segmentation, list):
            record["segmentation"] = [_rounded(polygon) for polygon in segmentation]
        elif segmentation:
            record["segmentation"] = segmentation
        else:
            record["area"] = round(box[2] * box[3], DECIMALS)
        annotations.append(record)
    images = [
        dict(id=image.id, file_name=image.file_name, width=image.width, height=image.height) for image in labels.images
    ]
    categories = [dict(id=category.id, name=category.name) for category in labels.categories]
    return dict(images=images, annotations=annotations, categories=categories)


def _rounded(values: list[float]) -> list[float]:
    return [round(value, DECIMALS) for value in values]
