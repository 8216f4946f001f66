"""What tidecv 1.0.1 finds on generated data, written to tidecv.json: ``python -m tests.golden.make_tidecv``.

tidecv (github.com/dbolya/tide, MIT) needs pandas and seaborn; the tests do not need it, they read the record.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.size_ap.size_ap_data import random_coco, with_masks

RECORD = Path(__file__).with_name("tidecv.json")
CASES = [(seed, iou_type) for seed in range(4) for iou_type in ("bbox", "segm")]


def data(seed: int, iou_type: str) -> tuple[dict, list[dict]]:
    """Generated annotations and results, fewer than 100 an image, because tidecv drops what is beyond."""
    coco, results = random_coco(seed, images=16, classes=4, detections=30, crowd=0.1)
    return (coco, results) if iou_type == "bbox" else with_masks(coco, results)


def figures(coco: dict, results: list[dict], iou_type: str) -> dict[str, Any]:
    """AP50, and per type the number of errors and the gain, all as tidecv computes them."""
    from tidecv import TIDE, Data
    from tidecv.errors import main_errors as kinds

    truth, found = Data("truth", max_dets=100), Data("found")
    for image in coco["images"]:
        truth.add_image(image["id"], str(image["id"]))
    for category in coco["categories"]:
        truth.add_class(category["id"], category["name"])
    for one in coco["annotations"]:
        add = truth.add_ignore_region if one["iscrowd"] else truth.add_ground_truth
        add(one["image_id"], one["category_id"], one["bbox"], one.get("segmentation"))
    for one in results:
        found.add_detection(one["image_id"], one["category_id"], one["score"], one.get("bbox"), one.get("segmentation"))
    run = TIDE().evaluate(truth, found, mode=TIDE.BOX if iou_type == "bbox" else TIDE.MASK)
    order = (kinds.ClassError, kinds.BoxError, kinds.OtherError, kinds.DuplicateError, kinds.BackgroundError,
             kinds.MissedError)  # fmt: skip
    gains, counts = run.fix_main_errors(), run.count_errors()
    return {"ap50": run.ap / 100, "counts": [counts[k] for k in order], "gains": [gains[k] / 100 for k in order]}


if __name__ == "__main__":
    RECORD.write_text(
        json.dumps({f"{seed} {kind}": figures(*data(seed, kind), kind) for seed, kind in CASES}, indent=1),
        encoding="utf-8",
    )
