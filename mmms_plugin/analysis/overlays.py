"""Predictions drawn over pictures beside the ground truth, and AP by object size as bars."""

from __future__ import annotations

import colorsys
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from pycocotools import mask as rle

from mmms_plugin.analysis.size_ap.segmentations import to_rles
from mmms_plugin.files import written_whole

COLUMNS = 2  # pictures beside each other, each with its ground truth


def draw_overlays(
    ann_file: Path, image_dir: Path, pred_file: Path, out_file: Path, *, pictures: int = 8, score: float = 0.3
) -> None:
    """Write a PNG of pictures in pairs: ground truth on the left, predictions of at least ``score`` on the right.

    Args:
        ann_file: COCO annotations. pred_file: COCO results with ``segmentation`` as RLE. image_dir: the pictures.
        pictures: how many, evenly spaced over the file.
    """
    truth = json.loads(ann_file.read_text())
    names = {c["id"]: c["name"] for c in truth["categories"]}
    objects, found = defaultdict(list), defaultdict(list)
    for annotation in truth["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    for prediction in json.loads(pred_file.read_text()):
        if prediction["score"] >= score:
            found[prediction["image_id"]].append(prediction)
    images = [image for image in truth["images"] if objects[image["id"]]]
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, min(pictures, len(images))).astype(int)]
    rows = -(-len(chosen) // COLUMNS)
    figure, axes = plt.subplots(rows, 2 * COLUMNS, figsize=(4 * COLUMNS * 1.6, 1.75 * rows * 1.6), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, image in enumerate(chosen):
        pixels = np.asarray(Image.open(image_dir / image["file_name"]).convert("RGB"))
        left, right = axes[i // COLUMNS, 2 * (i % COLUMNS) : 2 * (i % COLUMNS) + 2]
        _draw(left, pixels, objects[image["id"]], names)
        _draw(right, pixels, found[image["id"]], names)
    for column, title in enumerate(("ground truth", f"predicted, score >= {score:g}") * COLUMNS):
        axes[0, column].set_title(title, fontsize=10)
    _save(figure, out_file)


def draw_ap_bars(metrics: Mapping[str, float], out_file: Path) -> None:
    """Write a PNG of AP overall and by COCO size; ``metrics`` named as by mmdet's CocoMetric (``coco/bbox_mAP_s``)."""
    sizes = {"all": "", "small\n< 32² px": "_s", "medium\n32² to 96² px": "_m", "large\n> 96² px": "_l"}
    kinds = {"box": "bbox", "mask": "segm"}
    figure, axis = plt.subplots(figsize=(6.4, 3.6))
    for offset, (label, key) in enumerate(kinds.items()):
        values = [metrics.get(f"coco/{key}_mAP{suffix}", -1.0) for suffix in sizes.values()]
        x = np.arange(len(sizes)) + 0.38 * (offset - 0.5)
        bars = axis.bar(
            x, [max(v, 0.0) for v in values], 0.36, label=f"{label} AP", color=("#4c78a8", "#f58518")[offset]
        )
        axis.bar_label(bars, ["n/a" if v < 0 else f"{v:.2f}" for v in values], padding=2, fontsize=9)
    axis.set_xticks(np.arange(len(sizes)), list(sizes))
    axis.set_ylabel("COCO AP (IoU 0.50 to 0.95)")
    axis.set_ylim(0, 1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left")
    _save(figure, out_file)


def _draw(axis: plt.Axes, pixels: np.ndarray, items: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> None:
    grey = pixels.mean(2, keepdims=True)  # so that colour means class and nothing else
    canvas = np.repeat(0.7 * grey + 0.3 * 255, 3, 2)
    order = list(names)
    for item in items:
        colour = _colour(order.index(item["category_id"]), len(names))
        mask = rle.decode(
            to_rles([item["segmentation"]], np.array([pixels.shape[1::-1]]), "picture with object")[0]
        ).astype(bool)
        canvas[mask] = 0.5 * canvas[mask] + 0.5 * 255 * np.asarray(colour)
    axis.imshow(canvas.astype(np.uint8))
    for item in items:
        colour = _colour(order.index(item["category_id"]), len(names))
        x, y, width, height = item["bbox"]
        axis.add_patch(plt.Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1))
        score = f" {item['score']:.2f}" if "score" in item else ""
        axis.text(x, max(y - 2, 6), names[item["category_id"]] + score, fontsize=5, color=colour)


def _colour(index: int, count: int) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(0.02 + index / count, 0.9, 0.7)


def _save(figure: plt.Figure, out_file: Path) -> None:
    figure.tight_layout()
    with written_whole(out_file) as temporary:
        figure.savefig(temporary, dpi=120, format=out_file.suffix[1:])
    plt.close(figure)
