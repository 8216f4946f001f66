"""Predictions drawn over pictures beside the ground truth, and AP by object size as bars."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmms_plugin.coco.rle import to_rles
from mmms_plugin.files import written_whole
from mmms_plugin.report.drawing import Objects, Style, draw_objects, side_by_side
from mmms_plugin.report.figure_style import RUN_COLOURS, canvas, save

LETTERS = 1.8  # the sheet is looked at as a whole
COLUMNS, GAP = 2, 24  # pictures beside each other, each with its truth; px between them


def draw_overlays(
    ann_file: Path, image_dir: Path, pred_file: Path, out_file: Path, *, pictures: int = 8, score: float = 0.3
) -> None:
    """Write a PNG of pictures in pairs: the truth on the left, predictions of at least ``score`` on the right.

    Args:
        ann_file: COCO annotations.
        image_dir: folder of the pictures.
        pred_file: COCO results with ``segmentation`` as RLE.
        out_file: the PNG.
        pictures: how many, evenly spaced over the file.
        score: lowest score of a prediction that is drawn.
    """
    truth = json.loads(ann_file.read_text(encoding="utf-8"))
    places = {c["id"]: k for k, c in enumerate(truth["categories"])}
    style = Style.of([c["name"] for c in truth["categories"]], letters=LETTERS)
    objects, predictions = defaultdict(list), defaultdict(list)
    for annotation in truth["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    for prediction in json.loads(pred_file.read_text(encoding="utf-8")):
        if prediction["score"] >= score:
            predictions[prediction["image_id"]].append(prediction)
    images = [image for image in truth["images"] if objects[image["id"]]]
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, min(pictures, len(images))).astype(int)]
    pairs = []
    for image in chosen:
        grey = Image.open(image_dir / image["file_name"]).convert("L")  # so that colour means class and nothing else
        pixels = (0.7 * np.asarray(grey.convert("RGB")) + 0.3 * 255).astype(np.uint8)
        halves = [
            draw_objects(pixels, _objects(items[image["id"]], places, pixels), style)
            for items in (objects, predictions)
        ]
        pairs.append(side_by_side(halves[0], halves[1], ("truth", f"prediction, score >= {score:g}"), LETTERS))
    with written_whole(out_file) as temporary:
        _sheet(pairs).save(temporary, format="PNG", optimize=True)


def _sheet(pairs: Sequence[Image.Image]) -> Image.Image:
    """Drawings in rows of ``COLUMNS``, each as high as its highest."""
    rows = [pairs[i : i + COLUMNS] for i in range(0, len(pairs), COLUMNS)]
    width, heights = max(pair.size[0] for pair in pairs), [max(pair.size[1] for pair in row) for row in rows]
    sheet = Image.new("RGB", (COLUMNS * width + (COLUMNS - 1) * GAP, sum(heights) + (len(rows) - 1) * GAP), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, pair in enumerate(row):
            sheet.paste(pair, (column * (width + GAP), top))
        top += height + GAP
    return sheet


def draw_ap_bars(metrics: Mapping[str, float], out_file: Path) -> None:
    """Write bars of AP overall and by COCO size; ``metrics`` named as by mmdet's CocoMetric (``coco/bbox_mAP_s``)."""
    sizes = {"all": "", "small\n< 32² px": "_s", "medium\n32² to 96² px": "_m", "large\n> 96² px": "_l"}
    with canvas(height=3.6) as (figure, (axis,)):
        for offset, (label, key) in enumerate({"box": "bbox", "mask": "segm"}.items()):
            values = [metrics.get(f"coco/{key}_mAP{suffix}", -1.0) for suffix in sizes.values()]
            x = np.arange(len(sizes)) + 0.38 * (offset - 0.5)
            bars = axis.bar(x, [max(v, 0.0) for v in values], 0.36, label=f"{label} AP", color=RUN_COLOURS[offset])
            axis.bar_label(bars, ["n/a" if v < 0 else f"{v:.2f}" for v in values], padding=2, fontsize=9)
        axis.set_xticks(np.arange(len(sizes)), list(sizes))
        axis.set_ylabel("COCO AP (IoU 0.50 to 0.95)")
        axis.set_ylim(0, 1)
        axis.legend(loc="upper left")
    save(figure, out_file.parent, out_file.stem, (out_file.suffix[1:],))


def _objects(items: Sequence[Mapping[str, Any]], places: Mapping[int, int], pixels: np.ndarray) -> Objects:
    """COCO annotations or results with masks; ``places`` are the indices of the categories."""
    boxes = np.array([item["bbox"] for item in items], dtype=float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = np.array([places[item["category_id"]] for item in items], dtype=int)
    scores = np.array([item["score"] for item in items]) if all("score" in item for item in items) and items else None
    sizes = np.tile(pixels.shape[1::-1], (len(items), 1))
    return Objects(
        boxes, labels, scores, to_rles([item["segmentation"] for item in items], sizes, "picture with object")
    )  # type: ignore[arg-type]
