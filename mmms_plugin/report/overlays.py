"""Predictions drawn over pictures, beside the ground truth; and AP by object size as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmms_plugin.coco.objects import Detections, GroundTruth, positions
from mmms_plugin.coco.read import read_detections, read_ground_truth
from mmms_plugin.coco.run_lengths import Masks
from mmms_plugin.files import written_whole
from mmms_plugin.report.drawing import Objects, Style, draw_objects, side_by_side
from mmms_plugin.report.figure_style import RUN_COLOURS, canvas, save
from mmms_plugin.report.tables import NOT_AVAILABLE, metric_figure

LETTERS = 1.8  # large, because the sheet is shown as a whole
COLUMNS, GAP = 2, 24  # pairs of pictures per row; px between them


def draw_overlays(
    ann_file: Path, image_dir: Path, pred_file: Path, out_file: Path, *, pictures: int = 8, score: float = 0.3
) -> None:
    """Write a PNG of pairs of pictures: ground truth on the left, predictions of at least ``score`` on the right.

    Args:
        ann_file: COCO annotations with ``segmentation``.
        image_dir: folder of the pictures.
        pred_file: COCO results with ``segmentation``.
        out_file: the PNG.
        pictures: number of pictures, evenly spaced over the file.
        score: lowest score of predictions that are drawn.
    """
    truth, _ = read_ground_truth(ann_file, masks=True)
    run, _ = read_detections(pred_file, truth, masks=True)
    style = Style.of(truth.category_names, letters=LETTERS)
    shown = np.flatnonzero(np.isin(truth.image_ids, truth.image_id))
    pairs = []
    for place in shown[np.linspace(0, len(shown) - 1, min(pictures, len(shown))).astype(int)]:
        grey = Image.open(image_dir / truth.file_names[place]).convert("L")  # so that only classes are in colour
        pixels = (0.7 * np.asarray(grey.convert("RGB")) + 0.3 * 255).astype(np.uint8)
        here = [objects.image_id == truth.image_ids[place] for objects in (truth, run)]
        halves = [
            draw_objects(pixels, _objects(truth, here[0], truth.category_ids), style),
            draw_objects(pixels, _objects(run, here[1] & (run.scores >= score), truth.category_ids), style),
        ]
        pairs.append(side_by_side(halves[0], halves[1], ("truth", f"prediction, score >= {score:g}"), LETTERS))
    with written_whole(out_file) as temporary:
        _sheet(pairs).save(temporary, format="PNG", optimize=True)


def _sheet(pairs: Sequence[Image.Image]) -> Image.Image:
    """Drawings in rows of ``COLUMNS``; a row is as high as its highest drawing."""
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
    """Write bars of AP overall and by COCO size; ``metrics`` have mmdet's names, such as ``coco/bbox_mAP_s``."""
    sizes = {"all": "", "small\n< 32² px": "_s", "medium\n32² to 96² px": "_m", "large\n> 96² px": "_l"}
    with canvas(height=3.6) as (figure, (axis,)):
        for offset, (label, key) in enumerate({"box": "bbox", "mask": "segm"}.items()):
            values = [metric_figure(metrics.get(f"coco/{key}_mAP{suffix}", -1.0)) for suffix in sizes.values()]
            x = np.arange(len(sizes)) + 0.38 * (offset - 0.5)
            bars = axis.bar(x, [v or 0.0 for v in values], 0.36, label=f"{label} AP", color=RUN_COLOURS[offset])
            axis.bar_label(bars, [NOT_AVAILABLE if v is None else f"{v:.2f}" for v in values], padding=2, fontsize=9)
        axis.set_xticks(np.arange(len(sizes)), list(sizes))
        axis.set_ylabel("COCO AP (IoU 0.50 to 0.95)")
        axis.set_ylim(0, 1)
        axis.legend(loc="upper left")
    save(figure, out_file.parent, out_file.stem, (out_file.suffix[1:],))


def _objects(source: GroundTruth | Detections, chosen: NDArray[np.bool_], category_ids: NDArray[np.int64]) -> Objects:
    """The chosen annotations or predictions, which have masks, for drawing."""
    boxes = source.boxes[chosen]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    scores = source.scores[chosen] if isinstance(source, Detections) else None
    rles = Masks.of(source.rles or ()).rles(np.flatnonzero(chosen))
    return Objects(corners, positions(source.category_id[chosen], category_ids), scores, rles)  # type: ignore[arg-type]
